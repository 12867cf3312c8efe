"""Train a run up to a milestone, from wherever its state stands.

Whatever a step needs is a pure function of the run's seed and of the number of images seen, so a run that was killed
and started again ends with the same weights as one that never was. The state lives beside the milestones (see
diffit/state.py); the same command begins, continues, or finds that there is nothing left to do.
"""

import logging
import math
import signal
import sys
import time
from argparse import Namespace
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffit import cluster, draws, files, loader, milestone, process, state, tars
from diffit.cli import Parser, UserError, json_argument, run
from diffit.cluster import Rank
from diffit.ema import EMA
from diffit.fingerprint import commit, fingerprint
from diffit.journal import Report
from diffit.nets import build

log = logging.getLogger("diffit")


@dataclass(frozen=True)
class Machine:
    """How a run is carried out here; nothing of it belongs to what the run is."""

    microbatch: int | None  # images a rank takes at a time; None for all of its share of a batch
    workers: int  # loader processes a rank
    compile: bool
    gradient_checkpointing: bool
    checkpoint_minutes: float


def identity(spec: dict, manifest: dict) -> dict:
    """What a run is: its description with the network spelled out, and the content of its data."""
    augment_labels = process.build(spec["process"]).augment_labels
    net = {**spec["net"], "resolution": manifest["resolution"], "channels": 3, "augment_labels": augment_labels}
    return {**spec, "net": net, "data_sha256": manifest["content_sha256"]}


def train(rank: Rank, run_identity: dict, data: Path, folder: Path, target: int, kimgs: list[int], machine: Machine):
    """Train on this rank until ``target`` kimg are seen, writing each milestone of ``kimgs`` that is passed.

    Raises :class:`UserError` when loss or gradient stop being finite, before that step touches weights, EMA or
    checkpoints. Leaves with exit status 128 + signal, state saved, at the first step boundary after a signal.
    """
    training, seed = run_identity["training"], run_identity["seed"]
    batch = training["batch"]
    microbatch = _microbatch(batch, rank.world, machine.microbatch)
    accumulation = batch // (rank.world * microbatch)
    stop = cluster.StopSignal()

    torch.manual_seed(seed)
    task = process.build(run_identity["process"])
    net = build(run_identity["net"]).to(rank.device)
    ema = EMA(net, training["ema_halflife_kimg"] * 1000, training["ema_rampup"])
    optimizer = _optimizer(net, training)
    checkpoints = state.Checkpoints(folder)
    images = _restore(checkpoints, net, ema, optimizer)
    milestones = {_steps(kimg, batch): kimg for kimg in kimgs if not milestone.exists(_milestone_folder(folder, kimg))}
    first_step, last_step = images // batch, _steps(target, batch)

    def save() -> None:
        if rank.is_first:
            content = {"images": images, "net": net.state_dict(), "ema": ema.net.state_dict()}
            checkpoints.save(images, {**content, "optimizer": optimizer.state_dict()})
        rank.barrier()

    def publish(step: int) -> None:
        if rank.is_first and step in milestones:
            kimg = milestones[step]
            facts = {**run_identity, "kimg": kimg, "images_trained": images, "ranks": rank.world, "commit": commit()}
            milestone.write(_milestone_folder(folder, kimg), ema.net, facts)
            log.info("milestone: %d kimg", kimg)

    net.checkpoint_blocks = machine.gradient_checkpointing
    denoiser = task.denoiser(_compiled(net) if machine.compile else net)
    model = DistributedDataParallel(denoiser) if rank.world > 1 else denoiser
    pixels, labels = _decoded(rank, data)
    dataset = loader.TrainingImages(pixels, labels, task.draw, seed)
    numbers = loader.microbatches(first_step, last_step, batch, microbatch, rank.index, rank.world)
    batches = loader.load(dataset, numbers, machine.workers, pin=rank.device.type == "cuda")

    publish(first_step)
    report = Report(rank.is_first, folder, images, last_step * batch)
    saved_at = time.monotonic()
    with closing(report):
        for step in range(first_step, last_step):
            torch.manual_seed(_dropout_seed(seed, step, rank.index))
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(training, images)
            loss = torch.zeros((), device=rank.device)
            for part in range(accumulation):
                drawn = {name: value.to(rank.device, non_blocking=True) for name, value in next(batches).items()}
                is_last = part == accumulation - 1
                with nullcontext() if is_last or rank.world == 1 else model.no_sync():
                    loss += _backward(task, model, drawn, rank, batch, training["precision"])
            norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])

            due = rank.is_first and time.monotonic() - saved_at > machine.checkpoint_minutes * 60
            total, stopping, saving = rank.sum(loss.item(), stop.number or 0, due)
            if not (math.isfinite(total) and math.isfinite(norm)):
                raise UserError(
                    f"loss {total} or gradient norm {norm} is not finite in step {step} of {folder.parent}, after "
                    f"{images} images; weights, EMA and checkpoints are from before it: lower the learning rate or "
                    "check the data"
                )
            optimizer.step()
            optimizer.zero_grad()
            images += batch
            ema.update(net, images, batch)

            report.step(step, images, total / pixels[0].numel(), float(norm), optimizer.param_groups[0]["lr"])
            publish(step + 1)
            if stopping or saving or step + 1 == last_step:
                save()
                saved_at = time.monotonic()
            if stopping:
                number = int(stopping) if rank.world == 1 else (stop.number or signal.SIGTERM)
                log.info("stopped after %d images, state saved; the same command goes on from here", images)
                sys.exit(128 + number)


def _backward(task, model: nn.Module, drawn: dict[str, Tensor], rank: Rank, batch: int, precision: str) -> Tensor:
    """Add a microbatch's share of the gradient of the mean loss over the whole batch; return its share of the loss."""
    images = drawn.pop("images").float() / 127.5 - 1
    drawn.pop("labels")
    with torch.autocast(rank.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        loss = task.losses(model, images, drawn).sum() / batch
    (loss * rank.world).backward()  # DDP averages over ranks what must be summed
    return loss.detach()


def _microbatch(batch: int, world: int, wanted: int | None) -> int:
    microbatch = wanted or max(1, batch // world)
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
    """Linear warm-up from 0 (EDM's training code), then constant."""
    return training["learning_rate"] * min(1.0, images / max(training["warmup_kimg"] * 1000, 1e-8))


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(draws.dropout(seed, step, rank).integers(2**63))


def _steps(kimg: int, batch: int) -> int:
    """The first step boundary at which ``kimg`` thousand images have been seen."""
    return math.ceil(kimg * 1000 / batch)


def _restore(checkpoints: state.Checkpoints, net: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> int:
    content = checkpoints.load()
    if content is None:
        return 0
    net.load_state_dict(content["net"])
    ema.net.load_state_dict(content["ema"])
    optimizer.load_state_dict(content["optimizer"])
    return content["images"]


def _decoded(rank: Rank, data: Path) -> tuple[Tensor, Tensor]:
    """The decoded data set; the first rank decodes where it must, the others wait for it."""
    if rank.is_first:
        pixels = loader.decoded(data)
    rank.barrier()
    return pixels if rank.is_first else loader.decoded(data)


def _compiled(net: nn.Module) -> nn.Module:
    torch._dynamo.config.suppress_errors = True  # without a compiler: one warning, then eager
    return torch.compile(net)


def _milestone_folder(folder: Path, kimg: int) -> Path:
    return folder / "milestones" / str(kimg)


def _leg(folder: Path, spec: dict) -> None:
    """Record with which code this leg of the run goes on; say so where it is not the code of the leg before."""
    code = fingerprint(
        ["diffit.train", f"diffit.nets.{spec['net']['kind']}", f"diffit.process.{spec['process']['kind']}"]
    )
    path = folder / "legs.json"
    legs = files.read_json(path, remedy="restore it")["legs"] if path.exists() else []
    if legs and legs[-1]["code"] != code:
        log.warning("warning: the code of %s changed since its last leg (%s → %s)", folder, legs[-1]["code"], code)
    files.write_json(
        path, {"legs": [*legs, {"code": code, "commit": commit(), "at": time.strftime("%FT%TZ", time.gmtime())}]}
    )


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="the run's description as a JSON object")
    parser.add_argument("data", type=Path, help="the data set's folder with its manifest.json")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--milestone", type=int, required=True, metavar="KIMG", help="train until here")
    parser.add_argument("--publish", type=int, nargs="*", default=[], metavar="KIMG", help="milestones on the way")
    parser.add_argument("--ranks", type=int, default=1, help="processes on this machine")
    parser.add_argument("--microbatch", type=int, help="images a rank takes at a time (default: its whole share)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes a rank")
    parser.add_argument("--compile", action="store_true", help="compile the network where a compiler is found")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="time between checkpoints")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    folder, target = arguments.run / "state", arguments.milestone
    run_identity = identity(arguments.spec, tars.read_manifest(arguments.data))
    machine = Machine(
        arguments.microbatch,
        arguments.workers,
        arguments.compile,
        arguments.gradient_checkpointing,
        arguments.checkpoint_minutes,
    )
    kimgs = sorted({target, *arguments.publish})

    def train_here() -> None:
        with cluster.join() as rank:
            train(rank, run_identity, arguments.data, folder, target, kimgs, machine)

    if cluster.is_rank():
        return train_here()
    with state.lock(folder / "lock"):
        state.claim(folder, run_identity)
        if not milestone.exists(_milestone_folder(folder, target)):
            _refuse_what_has_passed(folder, target, run_identity["training"]["batch"])
            _leg(folder, run_identity)
            if arguments.ranks == 1:
                train_here()
            elif status := cluster.local(arguments.ranks, cluster.this_command()):
                sys.exit(status)
        milestone.publish(_milestone_folder(folder, target), arguments.run / str(target))


def _refuse_what_has_passed(folder: Path, target: int, batch: int) -> None:
    content = state.Checkpoints(folder).load()
    if content and content["images"] > _steps(target, batch) * batch:
        raise UserError(
            f"{folder.parent} has already seen {content['images']} images, so its weights at {target} kimg are gone; "
            f"ask for a later milestone, or start over by deleting {folder.parent}"
        )


if __name__ == "__main__":
    run(main)
