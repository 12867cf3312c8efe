"""What is to be trained, up to which milestone, and how this machine carries it out."""

import math
from dataclasses import dataclass
from pathlib import Path

from diffit import process
from diffit.cli import UserError
from diffit.data.sources import SOURCES
from diffit.runs import checkpoints, run_record
from diffit.weights import milestone
from diffit.weights.vae import latent_size
from diffit.weights.vae_shape import expected_shape, factor_of


@dataclass(frozen=True)
class Machine:
    """How a run is carried out here; nothing of it belongs to what the run is."""

    microbatch: int | None  # images a rank takes at a time; None for all of its share of a batch
    workers: int  # loader processes a rank
    compile: bool
    gradient_checkpointing: bool
    checkpoint_minutes: float
    stage_to: Path | None = None  # node-local folder to which latents are copied first


def identity(spec: dict, manifest: dict) -> dict:
    """What a run is: its description with the network completed, and the content of its data.

    Args:
        spec: dataset, seed, net, process and training, as the configuration describes the run.
        manifest: the manifest of the images or latents that it trains on.
    """
    completed = {**spec, "net": complete_network(spec, manifest), "data_sha256": manifest["content_sha256"]}
    if "vae" in manifest:
        images = {"images_sha256": manifest["images_sha256"], "resolution": manifest["resolution"]}
        return {**completed, **images, "vae": manifest["vae"]}
    return completed


def complete_network(spec: dict, manifest: dict) -> dict:
    """The network of a run with the sizes that follow from its data, as :func:`diffit.nets.build` takes it."""
    if "vae" in manifest:
        facts = manifest["vae"]
        shape = {"input_size": latent_size(manifest["resolution"], facts["factor"]), "channels": facts["channels"]}
        return {**spec["net"], **shape, "num_classes": manifest["classes"]}
    augment_labels = process.build(spec["process"]).augment_labels
    return {**spec["net"], "resolution": manifest["resolution"], "channels": 3, "augment_labels": augment_labels}


def expected_network(config: dict, run: dict) -> dict:
    """The network that a run will have, from the configuration alone: for plans, tables and diagrams.

    Where only the data can tell the number of classes, it is taken to be none; the table of labels is a fifth of a
    percent of the released network's parameters.
    """
    dataset = config["datasets"][run["dataset"]]
    manifest: dict = {"resolution": dataset["resolution"]}
    if run["vae"]:
        shape = expected_shape(config["vaes"][run["vae"]])
        manifest["classes"] = SOURCES[dataset["source"]].classes or 0
        manifest["vae"] = {"channels": shape["latent_channels"], "factor": factor_of(shape)}
    return complete_network(run, manifest)


@dataclass(frozen=True)
class Task:
    """What one command asks of a run: to train it up to a milestone and to publish that."""

    identity: dict
    data: Path
    folder: Path  # the run's
    machine: Machine
    kimg: int
    publish: list[int]  # milestones on the way

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def images(self) -> int:
        """The images to see."""
        batch = self.identity["training"]["batch"]
        return steps(self.kimg, batch) * batch

    def is_reached(self) -> bool:
        """Whether the milestone is there, be it that a training goes on beyond it."""
        return milestone.exists(milestone_folder(self.state, self.kimg))

    def deliver(self) -> None:
        """Copy the milestone to where the workflow expects it."""
        milestone.publish(milestone_folder(self.state, self.kimg), self.folder / str(self.kimg))

    def refuse_what_has_passed(self) -> None:
        """Raise :class:`UserError` where the run is beyond a milestone that was not published."""
        images = checkpoints.Checkpoints(self.state).images()
        if images > self.images:
            raise UserError(
                f"{self.folder} has already seen {images} images, so its weights at {self.kimg} kimg are gone; "
                f"ask for a later milestone, or start over by deleting {self.folder}"
            )

    def refuse_uneven(self, ranks: int) -> None:
        """Raise :class:`UserError` where a batch cannot be shared by so many ranks."""
        microbatch_size(self.identity["training"]["batch"], ranks, self.machine.microbatch)

    def prepare(self) -> None:
        """Make the state ready for a leg; for the holder of the lock, before ranks train."""
        checkpoints.Checkpoints(self.state).tidy()
        self.refuse_what_has_passed()
        run_record.begin_leg(self.state, self.identity)

    @property
    def milestones(self) -> list[int]:
        """The milestones to write on the way; 0 can be written at no other time."""
        return sorted({0, self.kimg, *self.publish})


def microbatch_size(batch: int, world: int, wanted: int | None) -> int:
    """Images that a rank takes at a time. Raises :class:`UserError` where they do not divide the batch."""
    microbatch = max(1, batch // world) if wanted is None else wanted
    if batch % (world * microbatch):
        raise UserError(
            f"training.batch {batch} is not a multiple of {world} ranks × {microbatch} images at a time; "
            "change ranks or microbatch in the profile"
        )
    return microbatch


def steps(kimg: int, batch: int) -> int:
    """The first step boundary at which ``kimg`` thousand images have been seen."""
    return math.ceil(kimg * 1000 / batch)


def milestone_folder(folder: Path, kimg: int) -> Path:
    """Where a run's state keeps a milestone."""
    return folder / "milestones" / str(kimg)
