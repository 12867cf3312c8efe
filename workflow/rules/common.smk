# What the rules look up: the slices of the configuration that a stage depends on, and the fingerprint of its code.
# A slice or a fingerprint that changes makes Snakemake run the stage again; whatever else changes does not.
import shlex
import sys
from pathlib import Path

from diffit.cli import UserError
from diffit.config import lookup, refuse_changes, shared_part, validate
from diffit.consistency import check_sampler
from diffit.files import canonical, modified, read_json
from diffit.fingerprint import fingerprint


wildcard_constraints:
    dataset=r"[^/]+",
    vae=r"[^/]+",
    run=r"[^/]+",
    sampler=r"[^/]+",
    protocol=r"[^/]+",
    kimg=r"\d+|released",
    shape=r"\d+x\d+x\d+x3",
    piece=r"\d+",
    pieces=r"\d+",
    images=r"data/[^/]+|samples/[^/]+/(\d+|released)/[^/]+",


PROTOCOL = "clean"

# Rules say `python`: the interpreter that runs Snakemake, unless each rule gets an environment of its own.
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def or_one_sentence(look, *arguments):
    """What ``look`` returns; a user's mistake ends here, and is not buried under places in the rules."""
    try:
        return look(*arguments)
    except UserError as error:
        sys.exit(f"error: {error}")


def entry(section, kind, name):
    return or_one_sentence(lookup, config[section], kind, name)


or_one_sentence(validate, config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")


def dataset(name):
    return entry("datasets", "data set", name)


def sampler(name):
    return entry("samplers", "sampler", name)


def run(name):
    return entry("runs", "run", name)


# Of a run that begins with published weights there is one only.
def last_milestone(name):
    return "released" if "weights" in run(name) else run(name)["milestones"][-1]


# The description of a data set without its cut into pieces, as the stages get it on their command lines.
def dataset_spec(wildcards):
    return canonical({key: value for key, value in dataset(wildcards.dataset).items() if key != "pieces"})


def inception_spec(wildcards):
    return canonical({"source": "inception", **config["inception"]})


# What a run is. Milestones, samplers and baselines are no part of it: they may change while it trains. The VAE's entry is
# one, wherever its files lie: another VAE would be noticed by its hash only after the outputs of the old one are deleted.
def run_spec(wildcards):
    described = run(wildcards.run)
    if "weights" in described:
        sys.exit(
            f"error: the weights of {wildcards.run} are published ones, so there is nothing to train; ask for released"
        )
    spec = {key: described[key] for key in ("dataset", "seed", "net", "process", "training")}
    if described["vae"]:
        spec["vae_spec"] = {key: value for key, value in vae(described["vae"]).items() if key != "path"}
    refuse_another_run(wildcards.run, spec)
    return canonical(spec)


# Training refuses a changed configuration itself, but Snakemake has deleted its outputs by then.
def refuse_another_run(name, spec):
    folder = Path("results/runs") / name
    begun = folder / "state/run.json"
    if not begun.exists():
        return
    before = or_one_sentence(read_json, begun, f"restore it, or start over by deleting {folder}")
    or_one_sentence(refuse_changes, folder, shared_part(before, spec), spec)


# What it trains on: images, or their latents.
def run_data(wildcards):
    described = run(wildcards.run)
    if described["vae"]:
        return f"results/latents/{described['dataset']}/{described['vae']}/manifest.json"
    return f"results/data/{described['dataset']}/manifest.json"


# Of a run with published weights: whose latents they are for.
def release_vae(wildcards):
    described = run(wildcards.run)
    if "weights" not in described:
        sys.exit(f"error: {wildcards.run} trains its weights, none are released; ask for one of its milestones")
    return f"results/vaes/{described['vae']}/vae.json"


# What samples are decoded with: nothing, where they are images already.
def sample_decoder(wildcards):
    name = run(wildcards.run)["vae"] and (sampler(wildcards.sampler).get("decoder") or run(wildcards.run)["vae"])
    return f"results/vaes/{name}/vae.json" if name else []


# Published weights, and the network that they are for.
def release_spec(wildcards):
    described = run(wildcards.run)
    spec = {key: described[key] for key in ("dataset", "net", "process", "weights")}
    return canonical({**spec, "resolution": dataset(described["dataset"])["resolution"]})


def vae(name):
    return entry("vaes", "VAE", name)


def vae_spec(wildcards):
    return canonical(vae(wildcards.vae))


# A pattern of the names of VAEs of a kind, which matches nothing where there are none.
def vaes_of_kind(kind):
    return "|".join(name for name, described in config["vaes"].items() if described["kind"] == kind) or "(?!)"


def vae_data(wildcards):
    return f"results/data/{vae(wildcards.vae)['dataset']}/manifest.json"


# A resource, since resources make nothing run again: which milestones to write when the training passes them.
def run_milestones(wildcards):
    return " ".join(str(kimg) for kimg in run(wildcards.run)["milestones"])


# A target may name any sampler beside the run's own.
def sampler_spec(wildcards):
    run(wildcards.run)
    described = sampler(wildcards.sampler)
    or_one_sentence(check_sampler, config, wildcards.run, wildcards.sampler)
    return canonical({key: value for key, value in described.items() if key != "pieces"})


def code(*modules, without=()):
    return fingerprint([f"diffit.{module}" for module in modules], without)


# Samples of an image-space run pass through no VAE.
def sampling_code(wildcards):
    described = run(wildcards.run)
    parts = ("sample", f"nets.{described['net']['kind']}", f"process.{described['process']['kind']}")
    return code(*parts, without=() if described["vae"] else ("diffit.vae",))


# When a folder of pictures last changed, so that a picture added or removed is noticed. For one that is gone, when it
# had changed at its download: what was made of it stays. Of ImageNet, the folder of the class folders; its tar has an md5.
def folder_state(wildcards):
    described = dataset(wildcards.dataset)
    if described["source"] not in ("folder", "imagenet") or not described["path"]:
        return None
    folder = Path(described["path"]).expanduser()
    if described["source"] == "imagenet" and (folder / "train").is_dir():
        folder /= "train"
    archive = Path("results/archives") / wildcards.dataset / "archive.json"
    if folder.is_dir():
        return modified(folder)
    return read_json(archive, remedy="download again").get("modified") if archive.exists() else None


def pieces_of(folder, count, ending):
    return [f"{folder}/{k}-of-{count}.{ending}" for k in range(count)]


def data_pieces(wildcards):
    return pieces_of(f"results/data/{wildcards.dataset}", dataset(wildcards.dataset)["pieces"], "tar")


def latent_pieces(wildcards):
    folder = f"results/latents/{wildcards.dataset}/{wildcards.vae}"
    return pieces_of(folder, dataset(wildcards.dataset)["pieces"], "tar")


def sample_pieces(wildcards):
    folder = f"results/samples/{wildcards.run}/{wildcards.kimg}/{wildcards.sampler}"
    return pieces_of(folder, sampler(wildcards.sampler)["pieces"], "tar")


# The feature pieces of a folder of images, whether data/{dataset} or samples/{run}/{kimg}/{sampler}.
def feature_pieces(wildcards):
    kind, *names = wildcards.images.split("/")
    count = dataset(names[0])["pieces"] if kind == "data" else sampler(names[-1])["pieces"]
    return pieces_of(f"results/{wildcards.images}/features/{wildcards.protocol}", count, "npz")


def data_features(wildcards):
    return f"results/data/{run(wildcards.run)['dataset']}/features/{wildcards.protocol}/manifest.json"


# What a run's result shows: its last milestone and, where the run asks for it, the untrained network.
def result_sets(wildcards):
    described = run(wildcards.run)
    kimgs = dict.fromkeys([last_milestone(wildcards.run)] + [0] * ("untrained" in described["baselines"]))
    return [f"{wildcards.run}/{kimg}/{described['sampler']}" for kimg in kimgs]


def result_scores(wildcards):
    return [f"results/scores/{images}/{PROTOCOL}.json" for images in result_sets(wildcards)]


# The records that name the jobs behind a result, by stage; data that several results share count in each.
def result_jobs(wildcards):
    described = run(wildcards.run)
    data, vaes = f"data/{described['dataset']}", [described["vae"], sampler(described["sampler"]).get("decoder")]
    sets = [f"samples/{images}" for images in result_sets(wildcards)]
    latents = [f"latents/{described['dataset']}/{described['vae']}"] if described["vae"] else []
    trained = "weights" not in described
    return [
        f"shard=results/{data}/manifest.json",
        *(f"vae=results/vaes/{name}/vae.json" for name in dict.fromkeys(filter(None, vaes))),
        *(f"encode=results/{folder}/manifest.json" for folder in latents if trained),
        *([f"train=results/runs/{wildcards.run}/state/legs.json"] if trained else []),
        *(f"sample=results/{images}/manifest.json" for images in sets),
        *(f"measure=results/{images}/features/{PROTOCOL}/manifest.json" for images in [data, *sets]),
    ]


# What the result file says about the run beside its scores.
def result_spec(wildcards):
    described = run(wildcards.run)
    return canonical({"run": wildcards.run, "paper": described["paper"], "baselines": described["baselines"]})


# Published weights come without the log of their training.
def result_curve(wildcards):
    return [] if "weights" in run(wildcards.run) else f"results/{wildcards.run}_curve.png"


def trained_weights(wildcards):
    if "weights" in run(wildcards.run):
        sys.exit(f"error: the weights of {wildcards.run} are published ones, without a training curve")
    return f"results/runs/{wildcards.run}/{last_milestone(wildcards.run)}/ema.safetensors"


def result_samples(wildcards):
    described = run(wildcards.run)
    return f"results/samples/{wildcards.run}/{last_milestone(wildcards.run)}/{described['sampler']}/manifest.json"
