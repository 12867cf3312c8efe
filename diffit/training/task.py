"""What a training command asks for: a run, the milestone to reach, and how this machine carries it out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffit import process
from diffit.cli import UserError
from diffit.data.sources import SOURCES
from diffit.runs import checkpoints, run_record
from diffit.training.ranks import Rank
from diffit.weights import milestone
from diffit.weights.vae import latent_size
from diffit.weights.vae_shape import expected_shape, factor_of


@dataclass(frozen=True)
class Machine:
    """How this machine carries out a run. These settings are not part of the run's identity."""

    microbatch: int | None  # images per rank and pass; None for the rank's whole share of a batch
    workers: int  # loader processes per rank
    compile: bool
    gradient_checkpointing: bool
    checkpoint_minutes: float
    stage_to: Path | None = None  # node-local folder to which latents are copied first
    skip_steps: frozenset[int] = frozenset()  # steps that may be skipped if their loss or gradient is not finite


def identity(spec: dict, manifest: dict) -> dict:
    """Return what a run is: its description, with all sizes of its network, and the hash of its data.

    Args:
        spec: dataset, seed, net, process and training, as the configuration describes the run.
        manifest: the manifest of the images or latents that the run trains on.
    """
    completed = {**spec, "net": complete_network(spec, manifest), "data_sha256": manifest["content_sha256"]}
    if "vae" in manifest:
        images = {"images_sha256": manifest["images_sha256"], "resolution": manifest["resolution"]}
        return {**completed, **images, "vae": manifest["vae"]}
    return completed


def complete_network(spec: dict, manifest: dict) -> dict:
    """Add to a run's network the sizes that follow from its data, as :func:`diffit.nets.build` needs them."""
    if "vae" in manifest:
        facts = manifest["vae"]
        shape = {"input_size": latent_size(manifest["resolution"], facts["factor"]), "channels": facts["channels"]}
        return {**spec["net"], **shape, "num_classes": manifest["classes"]}
    augment_labels = process.build(spec["process"]).augment_labels
    return {**spec["net"], "resolution": manifest["resolution"], "channels": 3, "augment_labels": augment_labels}


def expected_network(config: dict, run: dict) -> dict:
    """Derive the network of a run from the configuration only: for plans, tables and diagrams.

    If only the data can tell the number of classes, it is taken as 0. The label embedding holds a fifth of a percent of
    the released network's parameters.
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
    """One training command: train a run up to a milestone and put the milestone where the workflow expects it."""

    identity: dict
    data: Path
    folder: Path  # of the run
    machine: Machine
    kimg: int  # the milestone, in thousand images
    also_kimg: list[int]  # further milestones, written when the training passes them

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def images(self) -> int:
        """The number of images at which the training ends."""
        return images_at(self.kimg, self.identity["training"]["batch"])

    @property
    def milestones_kimg(self) -> list[int]:
        """All milestones to write. The untrained network, 0, is included: it cannot be written later."""
        return sorted({0, self.kimg, *self.also_kimg})

    def is_reached(self) -> bool:
        """Whether the milestone is written, even if a training continues beyond it."""
        return milestone.exists(milestone_folder(self.state, self.kimg))

    def deliver(self) -> None:
        """Put the milestone where the workflow expects it."""
        milestone.publish(milestone_folder(self.state, self.kimg), self.folder / str(self.kimg))

    def refuse_passed_milestone(self) -> None:
        """Raise :class:`UserError` if the run is already beyond the milestone without having written it."""
        images = checkpoints.Checkpoints(self.state).images()
        if images > self.images:
            raise UserError(
                f"{self.folder} has already seen {images} images, and its weights at {self.kimg} kimg were not kept; "
                f"ask for a later milestone, or start over by deleting {self.folder}"
            )

    def refuse_indivisible_batch(self, ranks: int) -> None:
        """Raise :class:`UserError` if a batch cannot be divided among so many ranks."""
        microbatch_size(self.identity["training"]["batch"], ranks, self.machine.microbatch)

    def prepare_leg(self) -> None:
        """Prepare the run's state for this start of the training. Only the holder of the run's lock may call it."""
        checkpoints.Checkpoints(self.state).clean_up()
        self.refuse_passed_milestone()
        run_record.begin_leg(self.state, self.identity)


# Trains a task as one rank; returns the signal that ended the training before the milestone, or None.
Train = Callable[[Task, Rank], int | None]


def microbatch_size(batch: int, world: int, wanted: int | None) -> int:
    """Return the images per rank and pass. Raises :class:`UserError` if they do not divide the batch."""
    microbatch = max(1, batch // world) if wanted is None else wanted
    if batch % (world * microbatch):
        raise UserError(
            f"training.batch {batch} is not a multiple of {world} ranks × {microbatch} images per pass; "
            "change the number of ranks or --microbatch in the profile"
        )
    return microbatch


def steps_until(kimg: int, batch: int) -> int:
    """Return the number of steps after which at least ``kimg`` thousand images have been seen."""
    return math.ceil(kimg * 1000 / batch)


def images_at(kimg: int, batch: int) -> int:
    """Return the images seen after the step that reaches ``kimg`` thousand images."""
    return steps_until(kimg, batch) * batch


def milestone_folder(folder: Path, kimg: int) -> Path:
    """Return where a run's state keeps a milestone."""
    return folder / "milestones" / str(kimg)
