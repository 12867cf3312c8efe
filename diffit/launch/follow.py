"""Follow a run's SLURM job on the terminal: show its state and progress, wait for its end, leave it or cancel it."""

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

INTERRUPTED = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"}  # caused by the cluster: submit another job
MIN_POLL_SECONDS, MAX_POLL_SECONDS = 2, 30  # long polls spare SLURM's controller, which all users share
PRINT_EVERY_SECONDS = 60
CONFIRM_SECONDS = 10
CANCEL_SECONDS = 120


def follow(task: Task, submission: dict) -> None:
    """Follow the job of a submission until the milestone is reached, or until another job must continue the training.

    SIGTERM or one SIGINT ends this process, and the job continues; a second SIGINT cancels the job. Raises
    :class:`UserError` if the job failed or was cancelled.
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
        self.name, self.job = submission["name"], submission["job"]
        self.last_seen = slurm_job.Job(self.job, "", "")
        self.progress = _Progress(task)
        self.interrupts, self.interrupted_at, self.is_terminated = 0, 0.0, False
        self.has_warned = False

    def interrupt(self, number, _frame) -> None:
        self.is_terminated |= number == signal.SIGTERM
        self.interrupts += number == signal.SIGINT
        self.interrupted_at = time.monotonic()

    def run(self) -> None:
        pause, due, seen_ended = MIN_POLL_SECONDS, time.monotonic(), 0
        asked_to_confirm = False
        while True:
            asked_to_confirm = self._handle_signals(asked_to_confirm)
            reached = self.task.is_reached()
            if reached and self.submission["kimg"] != self.task.kimg:
                return
            if reached or time.monotonic() >= due:
                has_changed = self._poll()
                pause = MIN_POLL_SECONDS if has_changed else min(MAX_POLL_SECONDS, 1.2 * pause)
                due = time.monotonic() + pause
                # A job that is being requeued may look for a moment as if it had ended, so check twice.
                seen_ended = seen_ended + 1 if self.last_seen.has_ended else 0
                if seen_ended == 2:
                    return self._end()
            self.progress.update()
            time.sleep(1)

    def _poll(self) -> bool:
        """Ask SLURM for the job's state, print it if it changed, and return whether it changed."""
        try:
            job = slurm_job.find(self.name) or slurm_job.Job(self.job, "UNKNOWN", "")
        except SlurmError as error:
            if not self.has_warned:
                log.warning("warning: SLURM does not answer (%s); job %s may still run", error, self.job)
                self.has_warned = True
            return False
        self.has_warned = False
        has_changed, self.last_seen = job != self.last_seen, job
        if has_changed and not job.has_ended:
            reason = "" if job.reason in ("None", "") else f" ({job.reason})"
            log.info("job %s is %s%s", job.id, job.state, reason)
        return has_changed

    def _end(self) -> None:
        if self.task.is_reached():
            return
        ended = slurm_job.outcome(self.job) or self.last_seen.state
        images = checkpoints.Checkpoints(self.task.state).images()
        if ended == "COMPLETED" and self.submission["kimg"] != self.task.kimg:
            return
        if ended in INTERRUPTED and images > self.submission["images"]:
            log.info("job %s ended as %s after %d images; another job continues from there", self.job, ended, images)
            return
        logs = Path(self.submission["logs"]) / f"{self.job}_0_log.out"
        how = "was cancelled" if ended == "CANCELLED" else f"ended as {ended}{_last_error(logs)}"
        raise UserError(
            f"job {self.job} of {self.task.folder} {how}; its state after {images} images is saved; repeat the "
            f"command to continue; its log is {logs}"
        )

    def _handle_signals(self, asked: bool) -> bool:
        """Leave or cancel the job if signals ask for it.

        Args:
            asked: whether the user was asked for a second interrupt.

        Returns whether the user has been asked now.
        """
        if self.interrupts >= 2:
            self._cancel()
            sys.exit(128 + signal.SIGINT)
        if self.is_terminated or (asked and time.monotonic() - self.interrupted_at > CONFIRM_SECONDS):
            log.info("job %s continues without this process; repeat the command to attach to it", self.job)
            sys.exit(128 + (signal.SIGTERM if self.is_terminated else signal.SIGINT))
        if self.interrupts and not asked:
            log.info("interrupt again within %d s to cancel job %s", CONFIRM_SECONDS, self.job)
        return self.interrupts > 0

    def _cancel(self) -> None:
        deadline = time.monotonic() + CANCEL_SECONDS
        try:
            slurm_job.cancel(self.job)
            while (job := slurm_job.find(self.name)) and not job.has_ended and time.monotonic() < deadline:
                time.sleep(1)
        except SlurmError as error:
            raise UserError(f"job {self.job} could not be cancelled ({error}); try: scancel {self.job}") from None
        log.info("job %s is cancelled; repeat the command to continue from its last checkpoint", self.job)


class _Progress:
    """Shows the training log of the job: a progress bar on a terminal, else one line per minute."""

    def __init__(self, task: Task):
        self.path, self.batch = task.state / metrics_log.LOG_FILE, task.identity["training"]["batch"]
        self.end_images = task.images
        form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {postfix}"
        self.bar = progress(
            lines=False, total=task.images, desc=task.folder.name, unit="img", unit_scale=True, bar_format=form
        )
        self.printed_at, self.entry = -PRINT_EVERY_SECONDS, metrics_log.read_last(self.path)

    def update(self) -> None:
        entry = metrics_log.read_last(self.path)
        if entry is None or entry == self.entry:
            return
        self.entry = entry
        line = metrics_log.progress_line(entry["images"], self.end_images, entry["loss"], entry["images_per_second"])
        step = f"step {entry['images'] // self.batch}: "
        self.bar.set_postfix_str(step + line.partition("images, ")[2], refresh=False)
        self.bar.update(entry["images"] - self.bar.n)
        if self.bar.disable and time.monotonic() - self.printed_at > PRINT_EVERY_SECONDS:
            log.info("%s%s", step, line)
            self.printed_at = time.monotonic()

    def close(self) -> None:
        self.bar.close()


def _last_error(path: Path) -> str:
    """Return the last error message in the log of a job, in parentheses; empty if the job was killed."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    message = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    return f" ({message})" if message else ""
