"""Training: interruptions do not change a bit of the weights; refusals; milestones."""

import json
import os
import signal
import time

import pytest
import torch
from helpers.training import EVERY_STEP, assert_same_course, orphans, wait_for_images
from safetensors.torch import load_file

from diffit.runs import checkpoints, metrics_log
from diffit.store import files
from diffit.training.trainer import _learning_rate


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_at_any_moment_ends_with_the_bits_of_an_undisturbed_one(training, ranks):
    options = ("--ranks", str(ranks))
    undisturbed = training("undisturbed")
    assert undisturbed.run(1, *options).status == 0

    killed = training("killed")
    for images in (1, 300, 700):
        process = killed.start(1, *options, *EVERY_STEP)
        wait_for_images(killed, process, images)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    ended = killed.run(1, *options)
    assert ended.status == 0, ended.message
    assert killed.weights(1) == undisturbed.weights(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_next_step_and_ends_within_seconds_with_the_workers(training, number):
    undisturbed, stopped = training("undisturbed"), training("stopped")
    assert undisturbed.run(1).status == 0
    process = stopped.start(1, "--workers", "2", *EVERY_STEP)
    wait_for_images(stopped, process, 200)
    os.killpg(process.pid, number)  # as a terminal and a scheduler do: the loader's workers get it too
    started = time.monotonic()
    _, message = process.communicate(timeout=240)
    assert time.monotonic() - started < 30
    assert process.returncode == 128 + number, message
    assert "state saved" in message
    assert orphans(process) == []
    assert stopped.run(1).status == 0
    assert stopped.weights(1) == undisturbed.weights(1)


def test_a_signal_to_two_ranks_saves_once_and_ends_both(training):
    stopped = training()
    process = stopped.start(1, "--ranks", "2", *EVERY_STEP)
    wait_for_images(stopped, process, 100)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM, message
    assert orphans(process) == []


def test_the_death_of_one_rank_ends_the_others_with_an_error(training):
    running = training()
    process = running.start(1, "--ranks", "2", *EVERY_STEP)
    wait_for_images(running, process, 50)
    rank = next(pid for pid in orphans(process) if int(pid) != process.pid)
    os.kill(int(rank), signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode not in (0, None)
    assert orphans(process) == []


def test_killing_the_launcher_kills_its_ranks(training):
    running = training()
    process = running.start(1, "--ranks", "2", *EVERY_STEP)
    wait_for_images(running, process, 50)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 240
    while orphans(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert orphans(process) == []


def test_two_ranks_and_accumulation_train_as_one_rank_does_up_to_rounding(training, tiny_run):
    net = {**tiny_run["net"], "dropout": 0.0}  # dropout draws by rank
    logs, weights = {}, {}
    for name, options in {"one": (), "two": ("--ranks", "2"), "parts": ("--microbatch", "4")}.items():
        run = training(name, net=net)
        assert run.run(1, *options).status == 0
        logs[name], weights[name] = metrics_log.read(run.folder / "state" / "log.jsonl"), run.weights(1)
    for other in ("two", "parts"):
        assert_same_course(logs[other], logs["one"])
        assert weights[other] != weights["one"]  # the sums were taken in another order: the options did something


def test_a_later_milestone_continues_and_ends_with_the_bits_of_a_straight_run(training):
    straight, extended = training("straight"), training("extended")
    assert straight.run(2, "--also-kimg", "0", "1", "2").status == 0
    assert extended.run(1).status == 0
    first = extended.weights(1)
    assert extended.run(2).status == 0
    assert extended.weights(1) == first
    assert extended.weights(2) == straight.weights(2)
    published = straight.folder / "state" / "milestones"
    assert sorted(path.name for path in published.iterdir()) == ["0", "1", "2"]
    assert (published / "1" / "ema.safetensors").read_bytes() == first


def test_a_deleted_output_is_linked_again_from_the_state_without_training(training):
    run = training()
    assert run.run(1).status == 0
    before, checkpoint = run.weights(1), run.checkpoints()[-1].stat().st_mtime_ns
    for path in (run.folder / "1").iterdir():
        path.unlink()
    assert run.run(1).status == 0
    assert run.weights(1) == before
    assert run.checkpoints()[-1].stat().st_mtime_ns == checkpoint


def test_a_milestone_that_was_passed_without_being_written_is_refused(training):
    run = training()
    assert run.run(2).status == 0
    ended = run.run(1)
    assert ended.status == 1
    assert "has already seen 2000 images" in ended.message and "start over" in ended.message


def test_after_a_damaged_checkpoint_the_previous_one_gives_the_same_bits(training):
    undisturbed, damaged = training("undisturbed"), training("damaged")
    assert undisturbed.run(1).status == 0
    process = damaged.start(1, *EVERY_STEP)
    wait_for_images(damaged, process, 300)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    newest = damaged.checkpoints()[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    ended = damaged.run(1)
    assert ended.status == 0
    assert "warning" in ended.message and newest.name in ended.message
    assert damaged.weights(1) == undisturbed.weights(1)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(training):
    run = training()
    assert run.run(1).status == 0
    for path in run.checkpoints():
        path.write_bytes(b"")
    ended = run.run(2)
    assert ended.status == 1
    assert "every checkpoint" in ended.message
    assert "Traceback" not in ended.message


def test_another_configuration_is_refused_with_the_difference_and_a_remedy(training, tiny_run):
    run = training()
    assert run.run(1).status == 0
    before = run.weights(1)
    run.spec["training"] = {**tiny_run["training"], "learning_rate": 2e-3}
    ended = run.run(2)
    assert ended.status == 1
    assert "training.learning_rate: 0.001 → 0.002" in ended.message
    assert "start over" in ended.message and "Traceback" not in ended.message
    assert run.weights(1) == before


def test_other_data_are_refused(training, digits, tmp_path):
    run = training()
    assert run.run(1).status == 0
    other = tmp_path / "other"
    other.mkdir()
    manifest = files.read_json(digits / "manifest.json", "")
    files.write_json(other / "manifest.json", {**manifest, "content_sha256": "0" * 64})
    run.data = other
    ended = run.run(2)
    assert ended.status == 1 and "data_sha256" in ended.message


def test_a_loss_that_is_not_finite_stops_before_it_touches_weights_or_checkpoints(training, tiny_run):
    run = training(training={**tiny_run["training"], "learning_rate": 1e15, "warmup_kimg": 0})
    ended = run.run(1, *EVERY_STEP)
    assert ended.status == 1
    assert "is not finite in step" in ended.message and "Traceback" not in ended.message
    content = checkpoints.Checkpoints(run.folder / "state").load()
    assert files.verify(run.checkpoints()[-1])
    step = int(ended.message.split("in step ")[1].split()[0])
    assert content["images"] == step * tiny_run["training"]["batch"]
    assert not (run.folder / "1").exists()


def test_a_batch_that_the_ranks_cannot_share_is_refused(training):
    ended = training().run(1, "--ranks", "3")
    assert ended.status != 0
    assert "training.batch 16 is not a multiple of 3 ranks" in ended.message


def test_the_same_run_started_twice_waits_and_does_not_train_twice(training):
    run = training()
    first = run.start(1, *EVERY_STEP)
    wait_for_images(run, first, 16)
    second = run.run(1)
    assert first.wait() == 0 and second.status == 0
    assert "waiting for process" in second.message
    assert len(files.read_json(run.folder / "state" / "legs.json", "")["legs"]) == 1


def test_the_log_has_no_repeated_images_after_a_kill(training):
    run = training()
    process = run.start(1, *EVERY_STEP)
    wait_for_images(run, process, 900)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run.run(1).status == 0
    images = [entry["images"] for entry in metrics_log.read(run.folder / "state" / "log.jsonl")]
    assert images == sorted(set(images)) and images[-1] == 1008


@pytest.mark.parametrize(
    "options",
    [("--gradient-checkpointing",), pytest.param(("--compile",), marks=[pytest.mark.slow, pytest.mark.extended])],
)
def test_options_of_the_machine_do_not_change_the_losses(training, tiny_run, options):
    net = {**tiny_run["net"], "dropout": 0.0}  # a compiled network draws its dropout differently
    plain, other = training("plain", net=net), training("other", net=net)
    assert plain.run(1).status == 0
    assert other.run(1, *options).status == 0
    assert_same_course(*(metrics_log.read(run.folder / "state" / "log.jsonl") for run in (other, plain)))


def test_training_in_bfloat16_keeps_float32_weights_and_learns(training, tiny_run):
    run = training(training={**tiny_run["training"], "precision": "bfloat16"})
    assert run.run(2).status == 0
    weights = load_file(run.folder / "2" / "ema.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())
    log = metrics_log.read(run.folder / "state" / "log.jsonl")
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]


def test_a_full_disk_ends_with_one_line_and_keeps_the_previous_checkpoint(training, small_disk):
    run = training()
    run.folder = small_disk("1500k") / "run"  # room for one checkpoint of 900 kB and part of the next
    ended = run.run(1, *EVERY_STEP)
    assert ended.status == 1
    assert "No space left on device" in ended.message and "checkpoint-" in ended.message
    assert "Traceback" not in ended.message
    assert checkpoints.Checkpoints(run.folder / "state").load()["images"] > 0


def test_the_untrained_network_is_always_written(training):
    run = training()
    assert run.run(1).status == 0
    assert run.run(0).status == 0
    assert files.read_json(run.folder / "0" / "config.json", "")["images_trained"] == 0


@pytest.mark.parametrize(
    "options", [("--microbatch", "-4"), ("--microbatch", "0"), ("--ranks", "0"), ("--workers", "-1")]
)
def test_invalid_numbers_are_refused_before_the_run_begins(training, options):
    run = training()
    ended = run.run(1, *options)
    assert ended.status == 2 and options[0] in ended.message and "Traceback" not in ended.message
    assert not run.folder.exists()


def test_ranks_whose_launcher_was_killed_at_once_do_not_begin(training):
    running = training()
    process = running.start(1, "--ranks", "2")
    deadline = time.monotonic() + 240
    while len(orphans(process)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    while orphans(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert orphans(process) == []
    assert running.checkpoints() == []


def test_variables_of_other_launchers_are_ignored(training, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    run = training()
    assert run.run(1).status == 0
    assert run.weights(1) and (run.folder / "state" / "run.json").exists()


def test_a_damaged_milestone_is_made_again_from_the_runs_own_copy(training):
    run = training()
    assert run.run(1).status == 0
    before, weights = run.weights(1), run.folder / "1" / "ema.safetensors"
    content = bytearray(before)
    content[-1] ^= 1
    with weights.open("r+b") as file:  # in place, as a failing disk does
        file.write(content)
    assert run.run(1).status == 0
    assert run.weights(1) == before


def test_damaged_checkpoints_do_not_crowd_out_intact_ones(training):
    run = training()
    assert run.run(1).status == 0
    run.checkpoints()[-1].write_bytes(b"")
    assert run.run(1).status == 0  # published already: nothing to do
    assert run.run(2).status == 1  # the only checkpoint is gone
    kept = training("kept")
    process = kept.start(1, *EVERY_STEP)
    wait_for_images(kept, process, 300)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    newest = kept.checkpoints()[-1]
    newest.write_bytes(b"")
    assert kept.run(1, *EVERY_STEP).status == 0
    assert newest.with_name(f"damaged-{newest.name}").exists()
    assert len(kept.checkpoints()) == 2 and all(files.verify(path) for path in kept.checkpoints())


def test_a_milestone_is_delivered_while_the_training_continues(training):
    run = training()
    later = run.start(1000, "--also-kimg", "1", *EVERY_STEP)
    wait_for_images(run, later, 1)
    ended = run.run(1)
    assert ended.status == 0, ended.message
    assert later.poll() is None and run.weights(1)
    later.send_signal(signal.SIGTERM)
    later.communicate(timeout=240)
    assert (run.folder / "state/lock").exists() is False


def test_without_warm_up_the_first_step_has_the_full_learning_rate():
    settings = {"learning_rate": 0.1, "warmup_kimg": 0}
    assert _learning_rate(settings, 0) == 0.1
    assert _learning_rate({**settings, "warmup_kimg": 2}, 500) == 0.025


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_that_lost_its_lock_ends_with_one_line_and_stops_writing(training, ranks):
    run = training()
    process = run.start(1000, "--ranks", str(ranks), *EVERY_STEP)
    wait_for_images(run, process, 100)
    path = run.folder / "state/lock"
    other = json.dumps({"host": "elsewhere", "pid": 1, "started": "0", "job": None, "start": 0})
    path.write_text(other)
    process.wait(240)
    before = run.checkpoints()
    _, message = process.communicate()
    assert process.returncode == 1 and "has lost the lock" in message and "Traceback" not in message
    assert path.read_text() == other
    assert run.checkpoints() == before and all(files.verify(path) for path in before)


def test_a_leg_is_recorded_with_its_code_its_time_and_the_job_around_it(training, monkeypatch):
    run = training()
    assert run.run(1).status == 0
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert run.run(2).status == 0
    legs = files.read_json(run.folder / "state/legs.json", "")["legs"]
    assert [leg["job"] for leg in legs] == [None, "7"]
    assert legs[0]["code"] == legs[1]["code"] and legs[0]["at"] <= legs[1]["at"]


def test_launcher_slurm_is_refused_without_slurm(training, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = training().run(1, "--launcher", "slurm")
    assert ended.status == 1
    assert "error: sbatch is not on this machine" in ended.message and "Traceback" not in ended.message


def test_the_last_entry_of_a_growing_log_is_the_last_complete_one(tmp_path):
    path = tmp_path / "log.jsonl"
    assert metrics_log.read_last(path) is None
    lines = [json.dumps({"images": images}) + "\n" for images in range(1000)]
    path.write_text("".join(lines) + '{"images": 10')
    assert metrics_log.read_last(path) == {"images": 999}
