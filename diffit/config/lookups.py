"""What the rules look up in a configuration: input files, the parameters that a stage depends on, fingerprints.

Most methods take Snakemake's wildcards, so that rules name them as they are. A parameter is the slice of the
configuration that a stage depends on: Snakemake runs a job again when its parameters change, so a slice must hold
nothing else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffit.cli import UserError
from diffit.config import paths
from diffit.config.changes import refuse_changes, shared_part
from diffit.config.cross_checks import check_sampler
from diffit.config.schema import NOT_OF_IMAGES, NOT_OF_SAMPLES
from diffit.config.validation import lookup
from diffit.data.sources import SOURCES
from diffit.nets import NETWORKS
from diffit.process import PROCESSES
from diffit.process.samplers import SAMPLERS
from diffit.scoring.metrics import metrics_of
from diffit.scoring.protocols import PROTOCOLS
from diffit.store.files import canonical, modified, read_json
from diffit.store.fingerprint import fingerprint

RELEASED = "released"  # stands for the kimg of published weights


class Lookups:
    """Lookups in a completed configuration.

    Args:
        config: the configuration as :func:`diffit.config.toy_runs.complete` completes it.
        folder: the workflow's folder, in which ``results/`` is.

    ``report_missing`` receives a :class:`UserError` for each of the user's files that a goal needs and that is not
    there; by default it is raised.

    Methods raise :class:`UserError` for names that are not defined and for runs that do not have what is asked for.
    """

    def __init__(self, config: dict, folder: Path = Path()):
        self.config, self.folder = config, folder
        self.report_missing: Callable[[UserError], None] = _raise

    # ------------------------------------------------------------------------------------------ entries by name

    def dataset(self, name: str) -> dict:
        """A data set by its name."""
        return lookup(self.config["datasets"], "data set", name)

    def vae(self, name: str) -> dict:
        """A VAE by its name."""
        return lookup(self.config["vaes"], "VAE", name)

    def sampler(self, name: str) -> dict:
        """A sampler by its name."""
        return lookup(self.config["samplers"], "sampler", name)

    def run(self, name: str) -> dict:
        """A run by its name."""
        return lookup(self.config["runs"], "run", name)

    def trains(self, name: str) -> bool:
        """Whether a run is trained here; otherwise its weights are published ones."""
        return "weights" not in self.run(name)

    def last_kimg(self, name: str) -> int | str:
        """The last milestone of a run in thousand images."""
        return self.run(name)["milestones"][-1] if self.trains(name) else RELEASED

    # ------------------------------------------------------------------------------------- download, shard, encode

    def dataset_spec(self, wildcards: Any) -> str:
        """A data set as the stages read it."""
        described = self.dataset(wildcards.dataset)
        return canonical({key: value for key, value in described.items() if key not in NOT_OF_IMAGES})

    def inception_spec(self, wildcards: Any) -> str:
        """The Inception network as the download stage reads it."""
        described = self.config["inception"]
        self._require_path("inception.path", described["path"], paths.INCEPTION)
        return canonical({"source": "inception", **described})

    def source_code(self, stage: str, wildcards: Any) -> str:
        """The fingerprint of a stage and of the reader of the data set's source."""
        return fingerprint([f"diffit.{stage}", SOURCES[self.dataset(wildcards.dataset)["source"]].module])

    def folder_state(self, wildcards: Any) -> int | None:
        """When the user's folder of images last changed, in ns since 1970: added and removed images are noticed.

        If the folder is gone, the time recorded at download is used, so that existing results stay valid. A folder that
        was never read is reported: before any job runs, and only to goals that need it.
        """
        described = self.dataset(wildcards.dataset)
        source, archive = SOURCES[described["source"]], paths.ARCHIVE.format(dataset=wildcards.dataset)
        watched = source.watched(described)
        if watched is not None and watched.is_dir():
            return modified(watched)
        made = read_json(self.folder / archive, "download again") if (self.folder / archive).exists() else {}
        if source.local and (watched is None or made.get("path") != str(watched.absolute())):
            given = f"'{described['path']}' does not exist or is not a directory" if described["path"] else "is not set"
            self.report_missing(
                UserError(f"datasets.{wildcards.dataset}.path: {given}; set it to the folder of your images")
            )
        elif not source.local:
            self._require_path(f"datasets.{wildcards.dataset}.path", described["path"], archive)
        return made.get("modified") if watched else None

    def data_shards(self, wildcards: Any) -> list[str]:
        """The image shards of a data set."""
        count = self.dataset(wildcards.dataset)["shards"]
        return paths.shards(paths.DATA_SHARD, count, dataset=wildcards.dataset)

    def vae_spec(self, wildcards: Any) -> str:
        """A VAE as its stages read it."""
        described = self.vae(wildcards.vae)
        place = f"vaes.{wildcards.vae}.path"
        self._require_path(place, described.get("path"), paths.VAE.format(vae=wildcards.vae))
        return canonical(described)

    def vae_data(self, wildcards: Any) -> str:
        """The images that a VAE is trained on."""
        return paths.DATA.format(dataset=self.vae(wildcards.vae)["dataset"])

    def vaes_of_kind(self, kind: str) -> str:
        """A pattern of the names of VAEs of a kind; it matches nothing where there are none."""
        return "|".join(name for name, vae in self.config["vaes"].items() if vae["kind"] == kind) or "(?!)"

    def latent_shards(self, wildcards: Any) -> list[str]:
        """The latent shards of a data set."""
        count = self.dataset(wildcards.dataset)["shards"]
        return paths.shards(paths.LATENT_SHARD, count, dataset=wildcards.dataset, vae=wildcards.vae)

    # ------------------------------------------------------------------------------------------------------- train

    def run_spec(self, wildcards: Any) -> str:
        """What a run is. Milestones, samplers and baselines are not part of it: they may change while it trains.

        The entry of its VAE is, except for its path: the hash of another VAE would be noticed only after the outputs
        of the old one are deleted. Refuses a run that began with another description, because Snakemake deletes
        outputs before training could refuse it.
        """
        described = self.run(wildcards.run)
        if not self.trains(wildcards.run):
            raise UserError(
                f"the weights of {wildcards.run} are published, so it cannot be trained; ask for kimg {RELEASED}"
            )
        spec = {key: described[key] for key in ("dataset", "seed", "net", "process", "training")}
        if described["vae"]:
            spec["vae_spec"] = {key: value for key, value in self.vae(described["vae"]).items() if key != "path"}
        folder = self.folder / paths.RUN.format(run=wildcards.run)
        record = self.folder / paths.RUN_RECORD.format(run=wildcards.run)
        if record.exists():
            before = read_json(record, f"restore it, or start over by deleting {folder}")
            refuse_changes(folder, shared_part(before, spec), spec)
        return canonical(spec)

    def run_data(self, wildcards: Any) -> str:
        """What a run trains on: images, or their latents."""
        described = self.run(wildcards.run)
        if described["vae"]:
            return paths.LATENTS.format(dataset=described["dataset"], vae=described["vae"])
        return paths.DATA.format(dataset=described["dataset"])

    def run_kimgs(self, wildcards: Any) -> str:
        """All milestones of a run. A resource, since a change of resources runs nothing again."""
        return " ".join(str(kimg) for kimg in self.run(wildcards.run)["milestones"])

    def release_vae(self, wildcards: Any) -> str:
        """The VAE that published weights are for."""
        if self.trains(wildcards.run):
            raise UserError(f"{wildcards.run} is trained, so no weights are released; ask for one of its milestones")
        return paths.VAE.format(vae=self.run(wildcards.run)["vae"])

    def release_spec(self, wildcards: Any) -> str:
        """Published weights, and the network that they are for."""
        described = self.run(wildcards.run)
        place = f"runs.{wildcards.run}.weights.path"
        self._require_path(place, described["weights"]["path"], paths.RELEASED.format(run=wildcards.run))
        spec = {key: described[key] for key in ("dataset", "net", "process", "weights")}
        return canonical({**spec, "resolution": self.dataset(described["dataset"])["resolution"]})

    def release_code(self, wildcards: Any) -> str:
        """The fingerprint of what turns published weights into a milestone."""
        return fingerprint(["diffit.weights.release", NETWORKS[self.run(wildcards.run)["net"]["kind"]].module])

    # ------------------------------------------------------------------------------------------------------ sample

    def sampler_spec(self, wildcards: Any) -> str:
        """A sampler as the stage reads it: its sets are consecutive seeds, sampled as one."""
        self.run(wildcards.run)
        described = self.sampler(wildcards.sampler)
        check_sampler(self.config, wildcards.run, wildcards.sampler)
        spec = {key: value for key, value in described.items() if key not in NOT_OF_SAMPLES}
        return canonical({**spec, "images": described["images"] * described["sets"]})

    def sample_decoder(self, wildcards: Any) -> str | list:
        """The VAE that decodes samples; nothing for an image-space run, whose samples are images."""
        own = self.run(wildcards.run)["vae"]
        decoder = own and (self.sampler(wildcards.sampler).get("decoder") or own)
        return paths.VAE.format(vae=decoder) if decoder else []

    def sample_code(self, wildcards: Any) -> str:
        """The fingerprint of sampling: the stage, the run's network and process, and the sampler."""
        described, sampler = self.run(wildcards.run), self.sampler(wildcards.sampler)
        modules = (
            NETWORKS[described["net"]["kind"]].module,
            PROCESSES[described["process"]["kind"]].module,
            SAMPLERS[sampler["kind"]].module,
        )
        without = () if described["vae"] else ("diffit.weights.vae",)  # no VAE decodes the samples of such a run
        return fingerprint(["diffit.sample", *modules], without)

    def sample_shards(self, wildcards: Any) -> list[str]:
        """The shards of a set of samples."""
        names = {"run": wildcards.run, "kimg": wildcards.kimg, "sampler": wildcards.sampler}
        return paths.shards(paths.SAMPLE_SHARD, self.sampler(wildcards.sampler)["shards"], **names)

    # ---------------------------------------------------------------------------------------------- measure, score

    def feature_shards(self, wildcards: Any) -> list[str]:
        """The feature shards of a folder of images."""
        kind, *names = wildcards.images.split("/")
        described = self.dataset(names[0]) if kind == "data" else self.sampler(names[-1])
        names = {"images": wildcards.images, "protocol": wildcards.protocol}
        return paths.shards(paths.FEATURE_SHARD, described["shards"], **names)

    def measure_code(self, wildcards: Any) -> str:
        """The fingerprint of measuring under a protocol; which arrays its metrics take is part of it."""
        return _scoring_code("diffit.measure", wildcards.protocol)

    def reference_code(self, wildcards: Any) -> str:
        """The fingerprint of making a reference under a protocol."""
        return _scoring_code("diffit.scoring.reference", wildcards.protocol)

    def score_code(self, wildcards: Any) -> str:
        """The fingerprint of scoring under a protocol."""
        without = ("diffit.measure",)  # measures images that a user names; the workflow's are measured already
        return fingerprint(["diffit.score"], without, facts=_protocol_facts(wildcards.protocol))

    def reference_dataset(self, wildcards: Any) -> str:
        """The data set whose images a score compares with: the run's own, or what stands for it under a protocol."""
        return self._compared(wildcards.dataset, wildcards.protocol)

    def reference_features(self, wildcards: Any) -> str:
        """The features that a reference is made of."""
        images = paths.data_of(self.reference_dataset(wildcards))
        return paths.FEATURES.format(images=images, protocol=wildcards.protocol)

    def reference_archive(self, wildcards: Any) -> str | list:
        """The archive of a published reference batch, whose statistics count; nothing for other data sets."""
        name = self.reference_dataset(wildcards)
        published = SOURCES[self.dataset(name)["source"]].statistics
        return paths.ARCHIVE.format(dataset=name) if published else []

    def run_reference(self, wildcards: Any) -> str:
        """The reference that a run's samples are scored against."""
        return paths.REFERENCE.format(dataset=self.run(wildcards.run)["dataset"], protocol=wildcards.protocol)

    def score_options(self, wildcards: Any) -> str:
        """The options of the score stage for a run's samples."""
        described = self.run(wildcards.run)
        options = [f"--images {self.sampler(wildcards.sampler)['images']}", f"--protocol {wildcards.protocol}"]
        options += ["--real-baseline"] * ("real" in described["baselines"])
        options += ["--class-accuracy"] * described["class_accuracy"]
        return " ".join(options)

    def _require_path(self, key: str, path: str | None, made: str) -> None:
        """Report a file of the user that is missing before ``made`` was made from it."""
        if path and not Path(path).expanduser().exists() and not (self.folder / made).exists():
            self.report_missing(UserError(f"{key}: '{path}' does not exist; correct it or put the file there"))

    def _compared(self, dataset: str, protocol: str) -> str:
        return self.dataset(dataset)["references"].get(protocol, dataset)


def _raise(error: UserError) -> None:
    raise error


def _protocol_facts(protocol: str) -> dict:
    """What the registries say of a protocol that changes its scores."""
    described = PROTOCOLS[protocol]
    facts = {key: value for key, value in vars(described).items() if not callable(value) and key != "source"}
    arrays = sorted({metric.takes for metric in metrics_of(protocol)})
    return {**facts, "resize": described.resize.__name__, "arrays": arrays}


def _scoring_code(module: str, protocol: str) -> str:
    """The fingerprint of a module under a protocol. Adding a metric changes it only if the protocol has the metric."""
    modules = [module, "diffit.scoring.resizing"]
    return fingerprint(modules, without=("diffit.scoring.metrics",), facts=_protocol_facts(protocol))
