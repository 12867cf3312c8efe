# What the rules look up: the slices of the configuration that a stage depends on, and the fingerprint of its code.
# A slice or a fingerprint that changes makes Snakemake run the stage again; whatever else changes does not.
import shlex
import sys
from collections import Counter
from pathlib import Path

from diffit.launch import orphaned_jobs
from diffit.cli import UserError
from diffit.config.changes import refuse_changes, shared_part
from diffit.config.validation import lookup
from diffit.config.cross_checks import check_sampler
from diffit.store.files import canonical, modified, read_json
from diffit.store.fingerprint import fingerprint
from diffit.config.toy_runs import PREFIX, complete


wildcard_constraints:
    dataset=r"[^/]+",
    vae=r"[^/]+",
    run=r"[^/]+",
    sampler=r"[^/]+",
    protocol=r"[^/]+",
    kimg=r"\d+|released",
    shape=r"\d+x\d+x\d+x3",
    shard=r"\d+",
    shards=r"\d+",
    images=r"data/[^/]+|samples/[^/]+/(\d+|released)/[^/]+",


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


# Beside every run stands its toy, a run like any other.
SOURCES = Path(workflow.basedir)
or_one_sentence(complete, config, SOURCES)
RUNS = [name for name in config["runs"] if not name.startswith(PREFIX)]


def dataset(name):
    return entry("datasets", "data set", name)


def sampler(name):
    return entry("samplers", "sampler", name)


def run(name):
    return entry("runs", "run", name)


# Of a run that begins with published weights there is one only.
def last_milestone(name):
    return "released" if "weights" in run(name) else run(name)["milestones"][-1]


# The description of a data set as the stages get it on their command lines: without its cut into shards and without what
# stands for it in scores.
def dataset_spec(wildcards):
    described = dataset(wildcards.dataset)
    return canonical({key: value for key, value in described.items() if key not in ("shards", "references")})


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


# A target may name any sampler beside the run's own. Its sets are consecutive seeds, so that they are sampled as one.
def sampler_spec(wildcards):
    run(wildcards.run)
    described = sampler(wildcards.sampler)
    or_one_sentence(check_sampler, config, wildcards.run, wildcards.sampler)
    spec = {key: value for key, value in described.items() if key not in ("shards", "sets")}
    return canonical({**spec, "images": described["images"] * described["sets"]})


def code(*modules, without=()):
    return fingerprint([f"diffit.{module}" for module in modules], without)


# Samples of an image-space run pass through no VAE.
def sampling_code(wildcards):
    described = run(wildcards.run)
    parts = ("sample", f"nets.{described['net']['kind']}", f"process.{described['process']['kind']}")
    return code(*parts, without=() if described["vae"] else ("diffit.weights.vae",))


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


def shards_of(folder, count, ending):
    return [f"{folder}/{k}-of-{count}.{ending}" for k in range(count)]


def data_shards(wildcards):
    return shards_of(f"results/data/{wildcards.dataset}", dataset(wildcards.dataset)["shards"], "tar")


def latent_shards(wildcards):
    folder = f"results/latents/{wildcards.dataset}/{wildcards.vae}"
    return shards_of(folder, dataset(wildcards.dataset)["shards"], "tar")


def sample_shards(wildcards):
    folder = f"results/samples/{wildcards.run}/{wildcards.kimg}/{wildcards.sampler}"
    return shards_of(folder, sampler(wildcards.sampler)["shards"], "tar")


# The feature shards of a folder of images, whether data/{dataset} or samples/{run}/{kimg}/{sampler}.
def feature_shards(wildcards):
    kind, *names = wildcards.images.split("/")
    count = dataset(names[0])["shards"] if kind == "data" else sampler(names[-1])["shards"]
    return shards_of(f"results/{wildcards.images}/features/{wildcards.protocol}", count, "npz")


# The data set whose images a score compares with: the run's own, or the one that stands for it under this protocol.
def reference_dataset(wildcards):
    described = dataset(wildcards.dataset)
    return described["references"].get(wildcards.protocol, wildcards.dataset)


def reference_features(wildcards):
    return f"results/data/{reference_dataset(wildcards)}/features/{wildcards.protocol}/manifest.json"


# Of a published batch the statistics count, which its archive holds.
def reference_archive(wildcards):
    name = reference_dataset(wildcards)
    return f"results/archives/{name}/archive.json" if dataset(name)["source"] == "adm" else []


def run_reference(wildcards):
    return f"results/data/{run(wildcards.run)['dataset']}/references/{wildcards.protocol}.npz"


def score_options(wildcards):
    described, rows = run(wildcards.run), [f"--images {sampler(wildcards.sampler)['images']}"]
    rows += ["--real-baseline"] * ("real" in described["baselines"])
    rows += ["--class-accuracy"] * described["class_accuracy"]
    return " ".join([*rows, f"--protocol {wildcards.protocol}"])


# What a run's result shows: its last milestone and, where the run asks for it, the untrained network.
def result_sets(wildcards):
    described = run(wildcards.run)
    kimgs = dict.fromkeys([last_milestone(wildcards.run)] + [0] * ("untrained" in described["baselines"]))
    return [f"{wildcards.run}/{kimg}/{described['sampler']}" for kimg in kimgs]


def result_scores(wildcards):
    protocols = run(wildcards.run)["protocols"]
    return [f"results/scores/{images}/{protocol}.json" for images in result_sets(wildcards) for protocol in protocols]


# The records that name the jobs behind a result, by stage; data that several results share count in each.
def result_jobs(wildcards):
    described = run(wildcards.run)
    name, vaes = described["dataset"], [described["vae"], sampler(described["sampler"]).get("decoder")]
    compared = {protocol: dataset(name)["references"].get(protocol, name) for protocol in described["protocols"]}
    sets = [f"samples/{images}" for images in result_sets(wildcards)]
    latents = [f"latents/{name}/{described['vae']}"] if described["vae"] else []
    trained = "weights" not in described
    return [
        *(
            f"shard=results/data/{data}/manifest.json"
            for data in dict.fromkeys([name] * trained + [*compared.values()])
        ),
        *(f"vae=results/vaes/{vae}/vae.json" for vae in dict.fromkeys(filter(None, vaes))),
        *(f"encode=results/{folder}/manifest.json" for folder in latents if trained),
        *([f"train=results/runs/{wildcards.run}/state/legs.json"] if trained else []),
        *(f"sample=results/{images}/manifest.json" for images in sets),
        *(
            f"measure=results/{images}/features/{protocol}/manifest.json"
            for protocol, data in compared.items()
            for images in [f"data/{data}", *sets]
        ),
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


def cancel_orphans():
    for job in orphaned_jobs.cancel(Path.cwd()):
        print(f"cancelled job {job} of a Snakemake that is gone", file=sys.stderr)


# The plugin collects the jobs of a rule until all of them are ready, and forgets those that --jobs lets through before.
def refuse_endless_arrays():
    arrays = getattr(workflow.executor_settings, "array_jobs", None)
    if not arrays:
        return
    chosen = arrays.replace(";", ",").replace(" ", "").split(",")
    waiting = Counter(job.rule.name for job in workflow.dag.needrun_jobs() if not job.is_local)
    for name, count in waiting.items():
        if ("all" in chosen or name in chosen) and count > workflow.resource_settings.nodes:
            sys.exit(
                f"error: --slurm-array-jobs with {count} jobs of {name} and --jobs {workflow.resource_settings.nodes} "
                f"would wait forever; give --jobs {count} or more, or no arrays"
            )
