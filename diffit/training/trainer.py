"""The training loop of one rank.

Each step is a pure function of the run's seed and the number of images seen. A run that is killed and restarted
therefore ends with the same weights as an uninterrupted one.
"""

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffit import process
from diffit.cli import UserError
from diffit.nets import build
from diffit.numerics import rng
from diffit.numerics.arithmetic import autocast
from diffit.numerics.pixels import to_network_range
from diffit.numerics.precision import warn_if_emulated
from diffit.runs import checkpoints, run_lock
from diffit.runs.metrics_log import ProgressReport
from diffit.store.fingerprint import commit
from diffit.training import image_loader, latent_loader, ranks
from diffit.training.ema import EMA
from diffit.training.ranks import Rank
from diffit.training.task import Machine, Task, images_at, microbatch_size, milestone_folder, steps_until
from diffit.weights import milestone

log = logging.getLogger("diffit")


def train(task: Task, rank: Rank) -> int | None:
    """Train a task as one rank; return the signal that ended the training before the milestone, or None."""
    return Trainer(rank, task.identity, task.state, task.machine).run(task.data, task.kimg, task.milestones_kimg)


class Trainer:
    """One rank of a training, restored from the run's newest checkpoint.

    Args:
        rank: this process among the ranks.
        run_identity: what the run is, see :func:`diffit.training.task.identity`.
        folder: the run's state folder.
        machine: how this machine carries out the run.
    """

    def __init__(self, rank: Rank, run_identity: dict, folder: Path, machine: Machine):
        self.rank, self.identity, self.folder, self.machine = rank, run_identity, folder, machine
        self.settings, self.seed = run_identity["training"], run_identity["seed"]
        self.batch = self.settings["batch"]
        self.microbatch = microbatch_size(self.batch, rank.world, machine.microbatch)

        torch.manual_seed(self.seed)
        self.process = process.build(run_identity["process"])
        self.net = build(run_identity["net"]).to(rank.device)
        self.net.checkpoint_blocks = machine.gradient_checkpointing
        self.ema = EMA(self.net, self.settings["ema_halflife_kimg"] * 1000, self.settings["ema_rampup"])
        self.optimizer = _optimizer(self.net, self.settings)
        self.checkpoints = checkpoints.Checkpoints(folder)
        self.skipped_steps: list[int] = []
        self.images = self._restore()
        denoiser = self.process.denoiser(_compiled(self.net) if machine.compile else self.net)
        self.model = DistributedDataParallel(denoiser, broadcast_buffers=False) if rank.world > 1 else denoiser

    def run(self, data: Path, kimg: int, milestones_kimg: list[int]) -> int | None:
        """Train on the data in ``data`` up to ``kimg`` thousand images and write the milestones on the way.

        After a signal to any rank, the training saves its state at the next step boundary and returns the signal.
        Raises :class:`UserError` if the loss or the gradient of a step is not finite and the step may not be skipped,
        or if the run's lock is lost.
        """
        first_step, end_step = self.images // self.batch, steps_until(kimg, self.batch)
        data_set = self._training_set(data)
        batches = self._batches(data_set, first_step, end_step)
        stop = ranks.StopSignal()
        if self.rank.is_first:
            warn_if_emulated(self.settings["precision"], self.rank.device.type)
        self._write_milestones(milestones_kimg)
        saved_at = time.monotonic()
        report = ProgressReport(self.rank.is_first, self.folder, self.images, images_at(kimg, self.batch))
        with closing(report):
            for step in range(first_step, end_step):
                loss, norm = self._accumulate(batches, step)
                due = time.monotonic() - saved_at > self.machine.checkpoint_minutes * 60
                stopping, saving = self.rank.sum(stop.number or 0, self.rank.is_first and due)
                self._update(step, loss, norm)
                loss = self.process.loss_per_value(loss, data_set.shape)
                rate = self.optimizer.param_groups[0]["lr"]
                report.step(step, self.images, loss, norm, rate, len(self.skipped_steps))
                self._write_milestones(milestones_kimg)
                if stopping or saving or step + 1 == end_step:
                    self._save()
                    saved_at = time.monotonic()
                if stopping and step + 1 < end_step:
                    log.info("stopped after %d images, state saved; repeat the command to continue", self.images)
                    return stop.number or signal.SIGTERM
        return None

    def _accumulate(self, batches: Iterator[dict[str, Tensor]], step: int) -> tuple[float, float]:
        """Accumulate the gradient of a batch over microbatches and ranks; return the mean loss and the gradient norm.

        If one of them is not finite and the step may not be skipped, this raises before it changes weights, EMA or
        checkpoints.
        """
        torch.manual_seed(_dropout_seed(self.seed, step, self.rank.index))
        loss = torch.zeros((), device=self.rank.device)
        parts = self.batch // (self.rank.world * self.microbatch)
        for part in range(parts):
            drawn = {name: value.to(self.rank.device, non_blocking=True) for name, value in next(batches).items()}
            synchronizes = self.rank.world == 1 or part + 1 == parts
            with nullcontext() if synchronizes else self.model.no_sync():
                loss += self._backward(drawn)
        norm = float(nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None]))
        (total,) = self.rank.sum(loss.item())
        if not _are_finite(total, norm) and step not in self.machine.skip_steps:
            raise UserError(
                f"loss {total} or gradient norm {norm} is not finite in step {step} of {self.folder.parent}, after "
                f"{self.images} images; weights and checkpoints are unchanged by this step; lower the learning rate, "
                f"check the data, or continue without the update of this step by the option --skip-step {step}"
            )
        return total, norm

    def _backward(self, drawn: dict[str, Tensor]) -> Tensor:
        """Add a microbatch's gradient of the batch's mean loss; return the microbatch's part of that loss."""
        images = to_network_range(drawn.pop("images"))  # [B, C, H, W]
        with autocast(self.settings["precision"], self.rank.device.type):
            loss = self.process.losses(self.model, images, drawn).sum() / self.batch
        (loss * self.rank.world).backward()  # DDP averages gradients over ranks; we need the sum
        return loss.detach()

    def _update(self, step: int, loss: float, norm: float) -> None:
        """Update weights, optimizer and EMA. A step that is not finite changes none of them and is recorded."""
        if _are_finite(loss, norm):
            for group in self.optimizer.param_groups:
                group["lr"] = _learning_rate(self.settings, self.images)
            if self.settings.get("clip_norm"):
                nn.utils.clip_grad_norm_(self.net.parameters(), self.settings["clip_norm"])
            self.optimizer.step()
            self.ema.update(self.net, self.images + self.batch, self.batch)
        else:
            self.skipped_steps.append(step)
            if self.rank.is_first:
                log.warning("warning: step %d is skipped: loss %s or gradient norm %s is not finite", step, loss, norm)
        self.optimizer.zero_grad()
        self.images += self.batch

    def _training_set(self, data: Path) -> image_loader.TrainingImages | latent_loader.TrainingLatents:
        """Map the images or latents in ``data`` into memory: the first rank verifies or decodes, the others wait.

        With ``stage_to``, one rank per node first copies latents to a local disk.
        """
        if "vae" in self.identity and self.machine.stage_to:
            if self.rank.is_first_here:
                latent_loader.stage(data, self.machine.stage_to)
            self.rank.barrier()
            data = self.machine.stage_to
        if self.rank.is_first:
            opened = self._open(data)
        self.rank.barrier()
        return opened if self.rank.is_first else self._open(data)

    def _open(self, data: Path) -> image_loader.TrainingImages | latent_loader.TrainingLatents:
        if "vae" in self.identity:
            mapped = latent_loader.LatentTars(data, verify=self.rank.is_first)
            return latent_loader.TrainingLatents(mapped, self.process.draw, self.seed, self.process.xflip)
        return image_loader.TrainingImages(
            *image_loader.decoded(data), self.process.draw, self.seed, self.process.xflip
        )

    def _batches(
        self, data_set: image_loader.TrainingImages | latent_loader.TrainingLatents, first_step: int, end_step: int
    ) -> Iterator[dict[str, Tensor]]:
        rank = self.rank
        numbers = image_loader.microbatches(first_step, end_step, self.batch, self.microbatch, rank.index, rank.world)
        return image_loader.load(data_set, numbers, self.machine.workers, pin=rank.device.type == "cuda")

    def _write_milestones(self, milestones_kimg: list[int]) -> None:
        """Write the milestones that are reached at the current number of images."""
        for kimg in milestones_kimg if self.rank.is_first else []:
            folder = milestone_folder(self.folder, kimg)
            if images_at(kimg, self.batch) == self.images and not milestone.exists(folder):
                run_lock.check(self.folder / "lock")
                made_by = {"ranks": self.rank.world, "commit": commit()}
                facts = {**self.identity, "kimg": kimg, "images_trained": self.images, **made_by}
                if self.skipped_steps:
                    facts["skipped_steps"] = self.skipped_steps
                milestone.write(folder, self.ema.net, facts)
                log.info("milestone: %d kimg", kimg)

    def _save(self) -> None:
        if self.rank.is_first:
            run_lock.check(self.folder / "lock")
            weights = {"net": self.net.state_dict(), "ema": self.ema.net.state_dict()}
            content = {"images": self.images, **weights, "optimizer": self.optimizer.state_dict()}
            self.checkpoints.save(self.images, {**content, "skipped_steps": self.skipped_steps})
        self.rank.barrier()

    def _restore(self) -> int:
        """Load the newest checkpoint; return the images that it has seen, 0 if there is none."""
        content = self.checkpoints.load()
        if content is None:
            return 0
        self.net.load_state_dict(content["net"])
        self.ema.net.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.skipped_steps = content.get("skipped_steps", [])  # absent from checkpoints of earlier versions
        return content["images"]


def _optimizer(net: nn.Module, training: dict) -> torch.optim.Optimizer:
    # fused: the same update in one kernel for all parameters (see `make bench`).
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training["optimizer"]]
    options = {"betas": tuple(training["betas"]), "weight_decay": training["weight_decay"], "fused": True}
    return kind(net.parameters(), lr=training["learning_rate"], **options)


def _learning_rate(training: dict, images: int) -> float:
    """lr(n) = learning_rate · min(1, n / warmup) after n images (Karras et al. 2022, training code); constant if
    warmup = 0.
    """
    warmup = training["warmup_kimg"] * 1000
    return training["learning_rate"] * (min(1.0, images / warmup) if warmup else 1.0)


def _are_finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(rng.dropout(seed, step, rank).integers(2**63))


def _compiled(net: nn.Module) -> nn.Module:
    torch._dynamo.config.suppress_errors = True  # if no compiler is installed: one warning, then eager mode
    return torch.compile(net)
