"""Follow a run's SLURM job from the terminal: its state, its progress, its end, and a way to leave or to cancel it."""

import logging
import signal
import sys
import time
from pathlib import Path

from diffit.cli import UserError, progress
from diffit.launch import slurm_job
from diffit.runs import checkpoints, metrics_log
from diffit.slurm.commands import SlurmError
from diffit.training.task import Task

log = logging.getLogger("diffit")

INTERRUPTED = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"}  # the cluster's doing: worth another job
LEAST_SECONDS, MOST_SECONDS = 2, 30  # between questions to SLURM's controller, which many follow
SAY_EVERY_SECONDS = 60
SECOND_THOUGHTS_SECONDS = 10
CANCEL_SECONDS = 120


def follow(task: Task, submission: dict) -> None:
    """Return once the milestone is there, or once the job has ended and another one should go on from its state.

    Raises :class:`UserError` where the job ended for another reason. SIGTERM, or one SIGINT, ends this process and
    leaves the job alone; a second SIGINT cancels it.
    """
    follower = _Follower(task, submission)
    previous = {number: signal.signal(number, follower.interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        follower.run()
    finally:
        follower.progress.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Follower:
    def __init__(self, task: Task, submission: dict):
        self.task, self.submission = task, submission
        self.name, self.job, self.last = submission["name"], submission["job"], slurm_job.Job(submission["job"], "", "")
        self.progress = _Progress(task)
        self.interrupts, self.interrupted_at, self.terminated = 0, 0.0, False
        self.warned = False

    def interrupt(self, number, _frame) -> None:
        self.terminated |= number == signal.SIGTERM
        self.interrupts += number == signal.SIGINT
        self.interrupted_at = time.monotonic()

    def run(self) -> None:
        pause, due, seen_ended = LEAST_SECONDS, time.monotonic(), 0
        asked_to_confirm = False
        while True:
            asked_to_confirm = self._obey(asked_to_confirm)
            reached = self.task.is_reached()
            if reached and self.submission["kimg"] != self.task.kimg:
                return
            if reached or time.monotonic() >= due:
                changed = self._look()
                pause = LEAST_SECONDS if changed else min(MOST_SECONDS, 1.2 * pause)
                due = time.monotonic() + pause
                # Twice: a job on its way back to the queue may look as if it had ended.
                seen_ended = seen_ended + 1 if self.last.has_ended else 0
                if seen_ended == 2:
                    return self._end()
            self.progress.tell()
            time.sleep(1)

    def _look(self) -> bool:
        """Ask for the job's state and say where it changed; returns whether it did."""
        try:
            job = slurm_job.find(self.name) or slurm_job.Job(self.job, "UNKNOWN", "")
        except SlurmError as error:
            if not self.warned:
                log.warning("warning: SLURM does not answer (%s); job %s may well go on", error, self.job)
                self.warned = True
            return False
        self.warned = False
        changed, self.last = job != self.last, job
        if changed and not job.has_ended:
            reason = "" if job.reason in ("None", "") else f" ({job.reason})"
            log.info("job %s is %s%s", job.id, job.state, reason)
        return changed

    def _end(self) -> None:
        if self.task.is_reached():
            return
        ended = slurm_job.outcome(self.job) or self.last.state
        images = checkpoints.Checkpoints(self.task.state).images()
        if ended == "COMPLETED" and self.submission["kimg"] != self.task.kimg:
            return
        if ended in INTERRUPTED and images > self.submission["images"]:
            log.info("job %s ended %s after %d images; another one goes on from there", self.job, ended, images)
            return
        logs = Path(self.submission["logs"]) / f"{self.job}_0_log.out"
        how = "was cancelled" if ended == "CANCELLED" else f"ended as {ended}{_last_words(logs)}"
        raise UserError(
            f"job {self.job} of {self.task.folder} {how}; its state after {images} images is saved and the same "
            f"command goes on from there; its log is {logs}"
        )

    def _obey(self, asked: bool) -> bool:
        """Leave, or cancel the job, as signals have asked; returns whether a second interrupt is waited for."""
        if self.interrupts >= 2:
            self._cancel()
            sys.exit(128 + signal.SIGINT)
        if self.terminated or (asked and time.monotonic() - self.interrupted_at > SECOND_THOUGHTS_SECONDS):
            log.info("job %s goes on without this process; the same command attaches to it again", self.job)
            sys.exit(128 + (signal.SIGTERM if self.terminated else signal.SIGINT))
        if self.interrupts and not asked:
            log.info("interrupt again within %d s to cancel job %s", SECOND_THOUGHTS_SECONDS, self.job)
        return self.interrupts > 0

    def _cancel(self) -> None:
        deadline = time.monotonic() + CANCEL_SECONDS
        try:
            slurm_job.cancel(self.job)
            while (job := slurm_job.find(self.name)) and not job.has_ended and time.monotonic() < deadline:
                time.sleep(1)
        except SlurmError as error:
            raise UserError(f"job {self.job} could not be cancelled ({error}); try: scancel {self.job}") from None
        log.info("job %s is cancelled; the same command goes on from its last checkpoint", self.job)


class _Progress:
    """What the job's journal says: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, task: Task):
        self.path, self.images, self.batch = task.state / "log.jsonl", task.images, task.identity["training"]["batch"]
        form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {postfix}"
        self.bar = progress(total=task.images, desc=task.folder.name, unit="img", unit_scale=True, bar_format=form)
        self.said_at, self.entry = -SAY_EVERY_SECONDS, metrics_log.last(self.path)

    def tell(self) -> None:
        entry = metrics_log.last(self.path)
        if entry is None or entry == self.entry:
            return
        self.entry = entry
        said = metrics_log.sentence(entry["images"], self.images, entry["loss"], entry["images_per_second"])
        step = f"step {entry['images'] // self.batch}: "
        self.bar.set_postfix_str(step + said.partition("images, ")[2], refresh=False)
        self.bar.update(entry["images"] - self.bar.n)
        if self.bar.disable and time.monotonic() - self.said_at > SAY_EVERY_SECONDS:
            log.info("%s%s", step, said)
            self.said_at = time.monotonic()

    def close(self) -> None:
        self.bar.close()


def _last_words(path: Path) -> str:
    """Why the training itself says that it ended, in parentheses; nothing where it was killed."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    return f" ({said})" if said else ""
