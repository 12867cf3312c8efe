"""Train a run up to a milestone, from wherever its state stands.

Whatever a step needs is a pure function of the run's seed and of the number of images seen, so a run that was killed
and started again ends with the same weights as one that never was. The state lives beside the milestones (see
diffit/state.py); the same command begins, continues, or finds that there is nothing left to do.
"""

import logging
import math
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffit import cluster, draws, latents, launch, loader, lock, milestone, process, state, tars
from diffit.cli import Parser, UserError, json_argument, natural, positive, run
from diffit.cluster import Rank
from diffit.ema import EMA
from diffit.fingerprint import commit
from diffit.images import values
from diffit.journal import Report
from diffit.nets import build
from diffit.vae import latent_size

log = logging.getLogger("diffit")


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
    """What a run is: its description with the network spelled out, and the content of its data."""
    data = {"data_sha256": manifest["content_sha256"]}
    if "vae" in manifest:
        facts, resolution = manifest["vae"], manifest["resolution"]
        shape = {"input_size": latent_size(resolution, facts["factor"]), "channels": facts["channels"]}
        net = {**spec["net"], **shape, "num_classes": manifest["classes"]}
        images = {"images_sha256": manifest["images_sha256"], "resolution": resolution}
        return {**spec, "net": net, **data, **images, "vae": facts}
    augment_labels = process.build(spec["process"]).augment_labels
    net = {**spec["net"], "resolution": manifest["resolution"], "channels": 3, "augment_labels": augment_labels}
    return {**spec, "net": net, **data}


class Trainer:
    """One rank's part in training a run: restored from the newest checkpoint, carried on to ``target`` kimg.

    Args:
        rank: this process among the run's ranks.
        run_identity: what the run is, see :func:`identity`.
        folder: the run's state folder.
        machine: how it is carried out here.
    """

    def __init__(self, rank: Rank, run_identity: dict, folder: Path, machine: Machine):
        self.rank, self.identity, self.folder, self.machine = rank, run_identity, folder, machine
        self.settings, self.seed = run_identity["training"], run_identity["seed"]
        self.batch = self.settings["batch"]
        self.microbatch = _microbatch(self.batch, rank.world, machine.microbatch)

        torch.manual_seed(self.seed)
        self.process = process.build(run_identity["process"])
        self.net = build(run_identity["net"]).to(rank.device)
        self.net.checkpoint_blocks = machine.gradient_checkpointing
        self.ema = EMA(self.net, self.settings["ema_halflife_kimg"] * 1000, self.settings["ema_rampup"])
        self.optimizer = _optimizer(self.net, self.settings)
        self.checkpoints = state.Checkpoints(folder)
        self.images = self._restore()
        denoiser = self.process.denoiser(_compiled(self.net) if machine.compile else self.net)
        self.model = DistributedDataParallel(denoiser, broadcast_buffers=False) if rank.world > 1 else denoiser

    def run(self, data: Path, target: int, kimgs: list[int]) -> int | None:
        """Train on the data set in ``data`` until ``target`` kimg, writing each milestone of ``kimgs`` on the way.

        Returns the signal that ended it before, state saved, at the first step boundary after it reached any rank.
        Raises :class:`UserError` when loss or gradient stop being finite, or when the run's lock is lost.
        """
        first, last = self.images // self.batch, _steps(target, self.batch)
        images = self._training_set(data)
        batches = self._batches(images, first, last)
        stop = cluster.StopSignal()
        self._publish(kimgs)
        saved_at = time.monotonic()
        with closing(Report(self.rank.is_first, self.folder, self.images, last * self.batch)) as report:
            for step in range(first, last):
                loss, norm = self._accumulate(batches, step)
                due = time.monotonic() - saved_at > self.machine.checkpoint_minutes * 60
                stopping, saving = self.rank.sum(stop.number or 0, self.rank.is_first and due)
                self._update()
                loss = self.process.loss_per_value(loss, images.shape)
                report.step(step, self.images, loss, norm, self.optimizer.param_groups[0]["lr"])
                self._publish(kimgs)
                if stopping or saving or step + 1 == last:
                    self._save()
                    saved_at = time.monotonic()
                if stopping and step + 1 < last:
                    log.info("stopped after %d images, state saved; the same command goes on from here", self.images)
                    return stop.number or signal.SIGTERM
        return None

    def _accumulate(self, batches: Iterator[dict[str, Tensor]], step: int) -> tuple[float, float]:
        """The gradient of a whole batch, over microbatches and ranks; returns its mean loss and the gradient's norm.

        A step that is not finite ends here, before it touches weights, EMA or checkpoints.
        """
        torch.manual_seed(_dropout_seed(self.seed, step, self.rank.index))
        loss = torch.zeros((), device=self.rank.device)
        parts = self.batch // (self.rank.world * self.microbatch)
        for part in range(parts):
            drawn = {name: value.to(self.rank.device, non_blocking=True) for name, value in next(batches).items()}
            gathers = self.rank.world == 1 or part + 1 == parts
            with nullcontext() if gathers else self.model.no_sync():
                loss += self._backward(drawn)
        norm = float(nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None]))
        (total,) = self.rank.sum(loss.item())
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise UserError(
                f"loss {total} or gradient norm {norm} is not finite in step {step} of {self.folder.parent}, after "
                f"{self.images} images; weights, EMA and checkpoints are from before it: lower the learning rate or "
                "check the data"
            )
        return total, norm

    def _backward(self, drawn: dict[str, Tensor]) -> Tensor:
        """Add a microbatch's share of the gradient of the batch's mean loss; return its share of the loss."""
        images = values(drawn.pop("images"))  # [B, C, H, W]
        with torch.autocast(self.rank.device.type, torch.bfloat16, enabled=self.settings["precision"] == "bfloat16"):
            loss = self.process.losses(self.model, images, drawn).sum() / self.batch
        (loss * self.rank.world).backward()  # DDP averages over ranks what must be summed
        return loss.detach()

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(self.settings, self.images)
        if self.settings.get("clip_norm"):
            nn.utils.clip_grad_norm_(self.net.parameters(), self.settings["clip_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.images += self.batch
        self.ema.update(self.net, self.images, self.batch)

    def _training_set(self, data: Path) -> loader.TrainingImages | latents.TrainingLatents:
        """The images or latents in ``data``, mapped into memory; the other ranks wait until the first has them.

        With ``stage_to``, latents are first copied to a disk of each node, by one of its ranks.
        """
        if "vae" in self.identity and self.machine.stage_to:
            if self.rank.is_first_here:
                latents.stage(data, self.machine.stage_to)
            self.rank.barrier()
            data = self.machine.stage_to
        if self.rank.is_first:
            opened = self._open(data)
        self.rank.barrier()
        return opened if self.rank.is_first else self._open(data)

    def _open(self, data: Path) -> loader.TrainingImages | latents.TrainingLatents:
        if "vae" in self.identity:
            mapped = latents.LatentTars(data, verify=self.rank.is_first)
            return latents.TrainingLatents(mapped, self.process.draw, self.seed, self.process.xflip)
        return loader.TrainingImages(*loader.decoded(data), self.process.draw, self.seed)

    def _batches(
        self, images: loader.TrainingImages | latents.TrainingLatents, first: int, last: int
    ) -> Iterator[dict[str, Tensor]]:
        rank = self.rank
        numbers = loader.microbatches(first, last, self.batch, self.microbatch, rank.index, rank.world)
        return loader.load(images, numbers, self.machine.workers, pin=rank.device.type == "cuda")

    def _publish(self, kimgs: list[int]) -> None:
        """Write the milestones that the images seen so far have just reached."""
        for kimg in kimgs:
            folder = _milestone_folder(self.folder, kimg)
            if (
                self.rank.is_first
                and _steps(kimg, self.batch) * self.batch == self.images
                and not milestone.exists(folder)
            ):
                lock.check(self.folder / "lock")
                made_by = {"ranks": self.rank.world, "commit": commit()}
                facts = {**self.identity, "kimg": kimg, "images_trained": self.images, **made_by}
                milestone.write(folder, self.ema.net, facts)
                log.info("milestone: %d kimg", kimg)

    def _save(self) -> None:
        if self.rank.is_first:
            lock.check(self.folder / "lock")
            weights = {"net": self.net.state_dict(), "ema": self.ema.net.state_dict()}
            content = {"images": self.images, **weights, "optimizer": self.optimizer.state_dict()}
            self.checkpoints.save(self.images, content)
        self.rank.barrier()

    def _restore(self) -> int:
        """Take over the newest intact checkpoint; returns the images that it had seen, 0 where there is none."""
        content = self.checkpoints.load()
        if content is None:
            return 0
        self.net.load_state_dict(content["net"])
        self.ema.net.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        return content["images"]


def _microbatch(batch: int, world: int, wanted: int | None) -> int:
    microbatch = max(1, batch // world) if wanted is None else wanted
    if batch % (world * microbatch):
        raise UserError(
            f"training.batch {batch} is not a multiple of {world} ranks × {microbatch} images at a time; "
            "change ranks or microbatch in the profile"
        )
    return microbatch


def _optimizer(net: nn.Module, training: dict) -> torch.optim.Optimizer:
    # Fused: one kernel for all parameters, the same update (see `make bench`).
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training["optimizer"]]
    options = {"betas": tuple(training["betas"]), "weight_decay": training["weight_decay"], "fused": True}
    return kind(net.parameters(), lr=training["learning_rate"], **options)


def _learning_rate(training: dict, images: int) -> float:
    """Linear warm-up from 0 (EDM's training code), then constant; constant at once where there is no warm-up."""
    warmup = training["warmup_kimg"] * 1000
    return training["learning_rate"] * (min(1.0, images / warmup) if warmup else 1.0)


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(draws.dropout(seed, step, rank).integers(2**63))


def _steps(kimg: int, batch: int) -> int:
    """The first step boundary at which ``kimg`` thousand images have been seen."""
    return math.ceil(kimg * 1000 / batch)


def _compiled(net: nn.Module) -> nn.Module:
    torch._dynamo.config.suppress_errors = True  # without a compiler: one warning, then eager
    return torch.compile(net)


def _milestone_folder(folder: Path, kimg: int) -> Path:
    return folder / "milestones" / str(kimg)


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
        return _steps(self.kimg, batch) * batch

    def is_reached(self) -> bool:
        """Whether the milestone is there, be it that a training goes on beyond it."""
        return milestone.exists(_milestone_folder(self.state, self.kimg))

    def deliver(self) -> None:
        """Copy the milestone to where the workflow expects it."""
        milestone.publish(_milestone_folder(self.state, self.kimg), self.folder / str(self.kimg))

    def refuse_what_has_passed(self) -> None:
        """Raise :class:`UserError` where the run is beyond a milestone that was not published."""
        images = state.Checkpoints(self.state).images()
        if images > self.images:
            raise UserError(
                f"{self.folder} has already seen {images} images, so its weights at {self.kimg} kimg are gone; "
                f"ask for a later milestone, or start over by deleting {self.folder}"
            )

    def refuse_uneven(self, ranks: int) -> None:
        """Raise :class:`UserError` where a batch cannot be shared by so many ranks."""
        _microbatch(self.identity["training"]["batch"], ranks, self.machine.microbatch)

    def prepare(self) -> None:
        """Make the state ready for a leg; for the holder of the lock, before ranks train."""
        state.Checkpoints(self.state).tidy()
        self.refuse_what_has_passed()
        state.begin_leg(self.state, self.identity)

    def train(self, rank: Rank) -> int | None:
        """This rank's part; returns the signal that ended it before the milestone."""
        kimgs = sorted({0, self.kimg, *self.publish})  # 0 can be published at no other time
        return Trainer(rank, self.identity, self.state, self.machine).run(self.data, self.kimg, kimgs)


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="the run's description as a JSON object")
    parser.add_argument("data", type=Path, help="the data set's folder with its manifest.json")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--milestone", type=natural, required=True, metavar="KIMG", help="train until here")
    parser.add_argument("--publish", type=natural, nargs="*", default=[], metavar="KIMG", help="milestones on the way")
    launch.add_arguments(parser)
    parser.add_argument("--microbatch", type=positive, help="images a rank takes at a time (default: its whole share)")
    parser.add_argument("--workers", type=natural, default=0, help="loader processes a rank")
    parser.add_argument("--compile", action="store_true", help="compile the network where a compiler is found")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="time between checkpoints")
    parser.add_argument("--stage-to", type=Path, metavar="FOLDER", help="copy latents to this node-local folder first")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    run_identity = identity(arguments.spec, tars.read_manifest(arguments.data))
    machine = Machine(
        arguments.microbatch,
        arguments.workers,
        arguments.compile,
        arguments.gradient_checkpointing,
        arguments.checkpoint_minutes,
        arguments.stage_to / run_identity["data_sha256"] if arguments.stage_to else None,
    )
    task = Task(run_identity, arguments.data, arguments.run, machine, arguments.milestone, arguments.publish)
    launch.launch(task, arguments)


if __name__ == "__main__":
    run(main)
