"""Training as a SLURM job: preemption, time limits, kills and requeues do not change a bit of the weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import REPOSITORY
from helpers.waiting import wait_until

from diffit.runs import metrics_log
from diffit.store import files

KIMG, TIMEOUT_SECONDS = 20, 500
TWO_NODES = ("--nodes", "2", "--gpu", "1")
EVERY_STEP = ("--checkpoint-minutes", "0")


class Head:
    """The command that submits a job and follows it, as a process; its messages go to a file."""

    def __init__(self, command: list[str], environment: dict, folder: Path, number: int):
        self.words = folder / f"head-{number}.err"
        with self.words.open("w") as words:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stderr=words, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.words.read_text()

    def ends(self, status: int = 0, seconds: float = TIMEOUT_SECONDS) -> str:
        """Wait for the end, check the exit status, and return the messages."""
        assert self.process.wait(seconds) == status, self.said
        assert "Traceback" not in self.said
        return self.said

    def waits_to_say(self, words: str) -> None:
        wait_until(lambda: words in self.said or self.process.poll() is not None, f"{words!r} said")
        assert words in self.said


class Run:
    """A run in its own folder, trained by jobs of the cluster."""

    def __init__(self, cluster, spec: dict, data: Path, folder: Path):
        self.cluster, self.spec, self.data, self.folder = cluster, spec, data, folder
        self.state, self.heads = folder / "results/runs/run/state", []
        self.environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY)}
        folder.mkdir()

    def start(self, *options: str, kimg: int = KIMG) -> Head:
        verb = [sys.executable, "-m", "diffit.train", json.dumps(self.spec), str(self.data), "results/runs/run"]
        place = ["--launcher", "slurm", "--slurm-partition", "batch", "--slurm-account", "project"]
        size = ["--cpus-per-task", "1", "--mem-mb", "2048", *TWO_NODES]
        command = [*verb, "--kimg", str(kimg), *place, *size, *options]
        self.heads.append(Head(command, self.environment, self.folder, len(self.heads)))
        return self.heads[-1]

    def weights(self, kimg: int = KIMG) -> bytes:
        return (self.folder / f"results/runs/run/{kimg}/ema.safetensors").read_bytes()

    @property
    def job(self) -> str:
        return files.read_json(self.state / "submission.json", "")["job"]

    @property
    def jobs(self) -> list[str]:
        """The job of each leg of the training."""
        return [leg["job"] for leg in files.read_json(self.state / "legs.json", "")["legs"]]

    def submitted(self) -> dict[str, str]:
        """Return all submitted jobs of the run, found by their comment, with their states."""
        said = self.cluster.run("squeue", "--noheader", "--states=all", "--format=%A|%T|%k")
        return dict(line.split("|")[:2] for line in said.splitlines() if f"{self.folder}/" in line)

    def in_queue(self) -> str:
        return self.cluster.run("squeue", "--noheader", f"--jobs={self.job}", "--format=%T").strip()

    def images(self) -> int:
        checkpoints = sorted(self.state.glob("checkpoint-*.pt"))
        return int(checkpoints[-1].stem.split("-")[1]) if checkpoints else 0

    def trains(self, beyond: int = 0) -> None:
        """Wait until the log of the run goes beyond a number of images."""

        def is_there() -> bool:
            entry = metrics_log.read_last(self.state / "log.jsonl")
            return entry is not None and entry["images"] > beyond

        wait_until(is_there, f"trained beyond {beyond} images")

    def ranks(self) -> list[int]:
        """Return the processes of the job's ranks."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                own = b"submitit.core._submit" in command and str(self.folder).encode() in command
                if own and not command.startswith((b"sh\0", b"srun\0", b"/bin/bash\0")):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def leaves_nothing(self) -> None:
        wait_until(lambda: not self.in_queue(), "no job in the queue", 30)
        wait_until(lambda: not self.ranks(), "no rank alive", 30)


@pytest.fixture
def run(cluster, tiny_run, digits, tmp_path):
    made = Run(cluster, tiny_run, digits, tmp_path / "site")
    yield made
    for head in made.heads:
        if head.process.poll() is None:
            head.process.kill()
    if (made.state / "submission.json").exists() and made.job:
        cluster.run("scancel", made.job)


@pytest.fixture(scope="module")
def kept() -> dict:
    return {}


@pytest.fixture
def undisturbed(kept, cluster, tiny_run, digits, tmp_path_factory) -> Run:
    """An uninterrupted run, trained once by one command."""
    if not kept:
        kept["run"] = Run(cluster, tiny_run, digits, tmp_path_factory.mktemp("undisturbed") / "site")
        kept["run"].start().ends()
    return kept["run"]


def test_one_training_runs_across_two_nodes_with_its_gpus_in_the_accounting(undisturbed):
    said = undisturbed.cluster.run(
        "sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={undisturbed.job}",
        "--format=State,NNodes,AllocTRES,JobName,Account",
    )  # fmt: skip
    state, nodes, resources, name, account = said.strip().split("|")
    assert (state, nodes, account) == ("COMPLETED", "2", "project")
    assert "gres/gpu=2" in resources and name.startswith("diffit-run-")
    assert undisturbed.jobs == [undisturbed.job]
    logs = undisturbed.folder / "logs/train/run/slurm"
    assert (logs / f"{undisturbed.job}_0_log.out").exists() and (logs / f"{undisturbed.job}_1_log.out").exists()
    record = files.read_json(undisturbed.folder / f"results/runs/run/{KIMG}/config.json", "")
    assert record["ranks"] == 2
    undisturbed.leaves_nothing()


def test_the_terminal_shows_step_speed_loss_and_time_left(undisturbed):
    assert "is RUNNING" in undisturbed.heads[0].said
    line = next(line for line in undisturbed.heads[0].said.splitlines() if line.startswith("step "))
    assert all(words in line for words in ("images, loss", "images/s", " left"))


def test_three_preemptions_in_a_row_change_nothing(run, undisturbed, cluster):
    head, seen = run.start(), 0
    for times in range(1, 4):
        run.trains(beyond=seen)
        cluster.run("sbatch", "--wait", "--partition=urgent", "--account=project", "--nodes=2", "--exclusive",
                    "--output=/dev/null", "--wrap=sleep 1")  # fmt: skip
        seen = run.images()
        assert seen > 0
        wait_until(lambda times=times: len(run.jobs) == times + 1, "the job runs again")
    head.ends()
    assert run.jobs == [run.job] * 4 and list(run.submitted()) == [run.job]
    assert run.weights() == undisturbed.weights()
    run.leaves_nothing()


@pytest.mark.extended
def test_a_run_longer_than_its_time_limit_continues(run, undisturbed):
    head = run.start("--runtime", "1", *EVERY_STEP)  # the warning comes 15 s before the end
    head.ends(seconds=900)
    assert len(run.jobs) > 1 and list(run.submitted()) == [run.job]
    assert run.weights() == undisturbed.weights()


def test_a_killed_rank_ends_the_job_with_one_line_and_the_repeated_command_continues(run, undisturbed, cluster):
    head = run.start(*EVERY_STEP)
    wait_until(lambda: run.images() > 100, "a checkpoint")
    first = run.job
    os.kill(run.ranks()[0], signal.SIGKILL)
    said = head.ends(1)
    assert f"error: job {first} of results/runs/run ended as FAILED" in said
    assert f"its log is logs/train/run/slurm/{first}_0_log.out" in said
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    run.leaves_nothing()
    run.start().ends()
    assert run.jobs == [first, run.job] and run.weights() == undisturbed.weights()


def test_scancel_ends_the_job_and_the_repeated_command_continues(run, undisturbed, cluster):
    head = run.start()
    run.trains()
    first = run.job
    cluster.run("scancel", first)
    said = head.ends(1)
    assert f"error: job {first} of results/runs/run was cancelled; its state after {run.images()} images" in said
    assert run.images() > 0
    run.leaves_nothing()
    run.start().ends()
    assert run.weights() == undisturbed.weights()


@pytest.mark.extended
def test_a_job_requeued_by_the_administrator_continues(run, undisturbed, cluster):
    head = run.start()
    run.trains()
    cluster.run("scontrol", "requeue", run.job)
    head.ends()
    assert run.jobs == [run.job] * 2 and list(run.submitted()) == [run.job]
    assert run.weights() == undisturbed.weights()


def test_after_a_kill_two_commands_attach_to_the_job(run, undisturbed):
    head = run.start()
    run.trains()
    head.process.kill()
    again, beside = run.start(), run.start()
    again.ends()
    beside.ends()
    assert f"job {run.job} already trains results/runs/run" in again.said
    assert list(run.submitted()) == [run.job] and run.jobs == [run.job]
    assert run.weights() == undisturbed.weights()


def test_a_crash_between_sbatch_and_its_record_does_not_submit_a_second_job(run, undisturbed, tmp_path):
    real, sbatch = shutil.which("sbatch"), tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\n{real} "$@"\nkill -9 $PPID\n')
    sbatch.chmod(0o755)
    path = run.environment["PATH"]
    run.environment["PATH"] = f"{sbatch.parent}:{path}"
    run.start().ends(-signal.SIGKILL)
    assert run.job is None
    run.environment["PATH"] = path
    run.start().ends()
    assert list(run.submitted()) == [run.job] == run.jobs
    assert run.weights() == undisturbed.weights()


@pytest.mark.extended
def test_sigterm_leaves_the_job_and_two_interrupts_cancel_it(run):
    head = run.start("--detach", kimg=1000)
    said = head.ends(75)
    assert f"job {run.job} trains results/runs/run; repeat the command to attach to it" in said
    head = run.start(kimg=1000)
    head.waits_to_say("is RUNNING")
    head.process.terminate()
    assert "continues without this process" in head.ends(128 + signal.SIGTERM)
    assert run.in_queue() == "RUNNING"
    head = run.start(kimg=1000)
    head.waits_to_say("is RUNNING")
    head.process.send_signal(signal.SIGINT)
    head.waits_to_say("interrupt again")
    head.process.send_signal(signal.SIGINT)
    assert f"job {run.job} is cancelled" in head.ends(128 + signal.SIGINT)
    run.leaves_nothing()
    assert list(run.submitted()) == [run.job]


@pytest.mark.extended
def test_an_edit_of_the_package_does_not_change_a_queued_job(run, undisturbed, cluster, tmp_path):
    sources = tmp_path / "sources"
    shutil.copytree(REPOSITORY / "diffit", sources / "diffit", ignore=shutil.ignore_patterns("__pycache__"))
    run.environment["PYTHONPATH"] = str(sources)
    block = cluster.run("sbatch", "--parsable", "--account=project", "--nodes=2", "--exclusive", "--output=/dev/null",
                        "--wrap=sleep 300").strip()  # fmt: skip
    head = run.start()
    head.waits_to_say("is PENDING")
    for path in (sources / "diffit").rglob("*.py"):
        path.write_text("raise SystemExit('edited')\n")
    cluster.run("scancel", block)
    head.ends()
    assert run.weights() == undisturbed.weights()
    legs = [files.read_json(of.state / "legs.json", "")["legs"] for of in (run, undisturbed)]
    assert legs[0][0]["code"] == legs[1][0]["code"]


@pytest.mark.parametrize(
    "options",
    [
        ("--slurm-extra=--gres=nosuch:1",),
        ("--slurm-extra=--gpus-per-node=a100:64",),
        ("--slurm-partition", "nosuch"),
        ("--slurm-account", "nosuch"),
    ],
)
def test_resources_that_the_cluster_does_not_have_give_one_line_and_no_job(run, options):
    said = run.start(*options).ends(1)
    assert (
        "error: SLURM refuses the job diffit-run-" in said and "correct the profile's resources of rule train" in said
    )
    assert set(run.submitted().values()) <= {"FAILED"}  # SLURM records some refused jobs as failed


@pytest.mark.extended
def test_the_command_waits_for_an_unavailable_controller(run, undisturbed, cluster):
    head = run.start()
    run.trains()
    cluster.stop_slurmctld()
    cluster.stop_slurmdbd()
    try:
        wait_until(lambda: "SLURM does not answer" in head.said, "the warning", 60)
    finally:
        cluster.start_slurmdbd()
        cluster.start_slurmctld()
    head.ends()
    assert head.said.count("warning: ") == 1
    assert run.weights() == undisturbed.weights() and list(run.submitted()) == [run.job]
