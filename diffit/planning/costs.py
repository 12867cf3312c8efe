"""What a stage costs: images, GPU-hours from the FLOPs of its networks, and bytes from its file formats.

NaN stands for an unknown number, such as the size of a folder of images that is not listed yet.
"""

import json
import math
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffit.config import paths
from diffit.config.validation import lookup
from diffit.data.shard_ranges import shard_of_blocks, shard_range
from diffit.data.sources import SOURCES
from diffit.nets.inspect import flops, size
from diffit.numerics.precision import PRECISIONS
from diffit.planning.dry_run import Job
from diffit.process import samplers
from diffit.runs.checkpoints import KEEP, Checkpoints
from diffit.scoring.metrics import ARRAYS, metrics_of
from diffit.scoring.protocols import PROTOCOLS
from diffit.scoring.resizing import SIZE
from diffit.store import files
from diffit.training.image_loader import DECODED
from diffit.training.task import expected_network, images_at, milestone_folder
from diffit.weights import vae
from diffit.weights.vae_shape import expected_shape, factor_of

PNG_BYTES_PER_PIXEL = 1.9  # diffit.data.images.png: 1.89 for 141 ImageNet photographs at 256×256, 1.64 at 512×512
NPY_HEADER = 128  # bytes


@dataclass(frozen=True)
class Gpu:
    """One GPU: peak FLOP/s in bfloat16, and the fractions of the peak that training and other stages reach."""

    peak: float = 312e12
    training: float = 0.4
    inference: float = 0.5

    def hours(self, flops: float, precision: str, utilization: float) -> float:
        """GPU-hours = flops / (peak · speed of the precision · utilization · 3600)."""
        return flops / (self.peak * PRECISIONS[precision].speed * utilization) / 3600


@dataclass(frozen=True)
class Cost:
    """Images that jobs process, GPU-hours, and bytes that they write; 0 if negligible."""

    images: float = 0
    gpu_hours: float = 0
    bytes: float = 0


def tar_bytes(images: float, *members: float) -> float:
    """Bytes of a tar with this many samples, each with members of these sizes (:func:`diffit.store.tars.write_tar`)."""
    block, record = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
    content = images * sum(block + -(-size // block) * block for size in members) + 2 * block
    return -(-content // record) * record


@cache
def autoencoder(shape: str, resolution: int) -> tuple[int, int]:
    """FLOPs of encoding and of decoding one image, for the shape of a VAE as canonical JSON."""
    with FakeTensorMode():
        model = vae.build(json.loads(shape))
        image = torch.zeros(1, 3, resolution, resolution)
        latent = model.encode(image).latent_dist.mean
        return (
            flops(lambda: model.encode(image).latent_dist.mean).total(),
            flops(lambda: model.decode(latent).sample).total(),
        )


@cache
def inception() -> int:
    """FLOPs of Inception-v3 per image."""
    from torchvision.models import inception_v3

    with FakeTensorMode():
        model = inception_v3(weights=None, init_weights=False).eval()
        return flops(lambda: model(torch.zeros(1, 3, SIZE, SIZE))).total()


class Costs:
    """The costs of jobs under one configuration.

    Args:
        config: the configuration as :func:`diffit.config.toy_runs.complete` completes it.
        folder: the workflow's folder; its finished downloads and checkpoints are read.
        gpu: the GPU that runs all jobs.
        counts: the number of images in data sets that are not downloaded yet.
    """

    def __init__(self, config: dict, folder: Path, gpu: Gpu, counts: dict[str, int]):
        self.config, self.folder, self.gpu, self.counts = config, folder, gpu, counts
        for name in counts:
            self._dataset(name)
        self.unknown: set[str] = set()  # data sets whose number of images was asked for and is unknown
        self.models = {
            "shard": self.shard,
            "train_vae": self.train_vae,
            "encode": self.encode,
            "train": self.train,
            "sample": self.sample,
            "measure": self.measure,
        }

    def of(self, rule: str, jobs: list[Job]) -> list[Cost]:
        """The cost of all jobs of one rule, in parts; empty for rules without a cost model."""
        return self.models[rule]([job.wildcards for job in jobs]) if rule in self.models else []

    def count(self, dataset: str) -> float:
        """Images in a data set, from its download, its source or the user; NaN if unknown."""
        archive = self.folder / paths.ARCHIVE.format(dataset=dataset)
        listed = files.read_json(archive, "delete it").get("count") if archive.exists() else None
        known = listed or SOURCES[self._dataset(dataset)["source"]].images or self.counts.get(dataset)
        if known is None:
            self.unknown.add(dataset)
        return known or math.nan

    def shard(self, jobs: list[dict]) -> list[Cost]:
        """The cost of shards of PNG images; here and below, ``jobs`` are the wildcards of each job."""
        costs = []
        for job in jobs:
            images = self._data_images(job["dataset"], job)
            png = PNG_BYTES_PER_PIXEL * self._dataset(job["dataset"])["resolution"] ** 2
            costs.append(Cost(images, 0, tar_bytes(images, png, 1)))
        return costs

    def train_vae(self, jobs: list[dict]) -> list[Cost]:
        """The cost of training VAEs: 3 · (encoding + decoding FLOPs) · images."""
        costs = []
        for job in jobs:
            described = self.config["vaes"][job["vae"]]
            images = described["steps"] * described["batch"]
            work = 3 * images * sum(self._autoencoder(job["vae"], described["dataset"]))
            hours = self.gpu.hours(work, "float32", self.gpu.training)
            costs.append(Cost(images, hours, self._decoded_bytes(described["dataset"])))
        return costs

    def encode(self, jobs: list[dict]) -> list[Cost]:
        """The cost of encoding each image and its mirror image to float16 [2, 2, C, h, w]."""
        costs = []
        for job in jobs:
            images = self._data_images(job["dataset"], job)
            encoding, _ = self._autoencoder(job["vae"], job["dataset"])
            side = self._dataset(job["dataset"])["resolution"] // factor_of(self._shape(job["vae"]))
            array = NPY_HEADER + 2 * 2 * self._shape(job["vae"])["latent_channels"] * side**2 * 2
            costs.append(Cost(images, self._inference(2 * images * encoding), tar_bytes(images, array, 1)))
        return costs

    def train(self, jobs: list[dict]) -> list[Cost]:
        """The cost of each run from its newest checkpoint to its last milestone: 3 · forward FLOPs · images."""
        targets: dict[str, int] = {}
        for job in jobs:
            targets[job["run"]] = max(int(job["kimg"]), targets.get(job["run"], 0))
        costs = []
        for name, kimg in targets.items():
            run = self.config["runs"][name]
            training = run["training"]
            images = max(0, images_at(kimg, training["batch"]) - Checkpoints(self._state(name)).images())
            forward = size(self.net(run)).flops
            hours = self.gpu.hours(3 * forward * images, training["precision"], self.gpu.training)
            costs.append(Cost(images, hours, self._run_bytes(name, kimg)))
        images_of = {self.config["runs"][name]["dataset"] for name in targets if not self.config["runs"][name]["vae"]}
        return costs + [Cost(bytes=self._decoded_bytes(dataset)) for dataset in images_of]

    def sample(self, jobs: list[dict]) -> list[Cost]:
        """The cost of samples: (passes · forward FLOPs + decoding FLOPs) · images."""
        costs = []
        for job in jobs:
            run, sampler = self.config["runs"][job["run"]], self.config["samplers"][job["sampler"]]
            images, side = self._sampled(sampler, job), self._dataset(run["dataset"])["resolution"]
            forward = size(self.net(run)).flops
            decoding = self._autoencoder(run["vae"], run["dataset"])[1] if run["vae"] else 0
            precision = sampler.get("precision", "float32")
            hours = self._inference(images * samplers.passes(run["process"], sampler) * forward, precision)
            # A VAE decodes in float32, or in TF32 if the sampler allows it.
            hours += self._inference(images * decoding, "tf32" if precision == "tf32" else "float32")
            costs.append(Cost(images, hours, tar_bytes(images, NPY_HEADER + 3 * side**2, 1)))
        return costs

    def measure(self, jobs: list[dict]) -> list[Cost]:
        """The cost of features: per image, the arrays of the protocol in float32 and a label of 8 bytes."""
        costs = []
        for job in jobs:
            kind, *names = job["images"].split("/")
            sampled = kind == "samples"
            sampler = self.config["samplers"][names[-1]] if sampled else None
            images = self._sampled(sampler, job) if sampled else self._data_images(names[0], job)
            protocol = PROTOCOLS[job["protocol"]]
            floats = sum(ARRAYS[name] for name in {"features", *(m.takes for m in metrics_of(protocol.name))})
            costs.append(Cost(images, self._inference(images * inception()), images * (floats * 4 + 8)))
        return costs

    def _state(self, run: str) -> Path:
        return self.folder / paths.RUN_STATE.format(run=run)

    def _inference(self, work: float, precision: str = "float32") -> float:
        return self.gpu.hours(work, precision, self.gpu.inference)

    def _dataset(self, name: str) -> dict:
        return lookup(self.config["datasets"], "data set", name)

    def _data_images(self, dataset: str, job: dict) -> float:
        count = self.count(dataset)
        return count if math.isnan(count) else len(shard_range(int(job["shard"]), int(job["shards"]), count))

    def _sampled(self, sampler: dict, job: dict) -> int:
        first, count, block = sampler["first_seed"], sampler["images"] * sampler["sets"], sampler["block"]
        blocks = shard_of_blocks(first, count, block, int(job["shard"]), int(job["shards"]))
        return min(blocks.stop * block, first + count) - max(blocks.start * block, first)

    def _shape(self, name: str) -> dict:
        return expected_shape(self.config["vaes"][name])

    def _autoencoder(self, name: str, dataset: str) -> tuple[int, int]:
        return autoencoder(files.canonical(self._shape(name)), self._dataset(dataset)["resolution"])

    def net(self, run: dict) -> dict:
        """The network of a run as :func:`diffit.nets.build` takes it."""
        return expected_network(self.config, run)

    def _run_bytes(self, name: str, kimg: int) -> float:
        """Bytes of the checkpoints (weights, EMA, two moments), of one being written, and of milestones, in float32."""
        run, state = self.config["runs"][name], self._state(name)
        weights = 4 * size(self.net(run)).parameters
        checkpoints = KEEP + 1 - len(Checkpoints(state).paths())
        milestones = {0, kimg, *(milestone for milestone in run["milestones"] if milestone < kimg)}
        written = sum(milestone_folder(state, milestone).exists() for milestone in milestones)
        return checkpoints * 4 * weights + (len(milestones) - written) * weights

    def _decoded_bytes(self, dataset: str) -> float:
        """Bytes of the decoded images that training maps into memory: uint8 [N, 3, H, W], and labels of 8 bytes."""
        if (self.folder / paths.DATA.format(dataset=dataset)).with_name(DECODED).exists():
            return 0
        return self.count(dataset) * (3 * self._dataset(dataset)["resolution"] ** 2 + 8)
