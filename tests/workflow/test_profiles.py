"""Which profile runs the jobs, which files configure them, and what is said where either is missing."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers.places import REPOSITORY

ARCHIVE = "results/archives/digits/archive.json"


@pytest.fixture
def folder(tmp_path):
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    return tmp_path


def snakemake(folder, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "-d", str(folder)]
    ended = subprocess.run(
        [*command, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return ended.returncode, ended.stdout


def test_both_profiles_are_named_in_the_same_form():
    for name in ("local", "slurm"):
        assert (REPOSITORY / name).is_symlink()
        assert (REPOSITORY / name / "config.yaml").samefile(REPOSITORY / "profiles" / name / "config.yaml")
        assert yaml.safe_load((REPOSITORY / name / "config.yaml").read_text())["quiet"] == ["host", "reason"]


def test_without_a_profile_the_last_line_names_both(folder):
    status, said = snakemake(folder, ARCHIVE)
    assert status == 1
    assert said.splitlines()[-1].startswith("error: no profile says where the jobs run; add --profile local")
    assert "--profile slurm" in said.splitlines()[-1] and "Traceback" not in said
    assert not (folder / ARCHIVE).exists()
    # The folder is not left locked, and a number of cores is as good as a profile.
    assert snakemake(folder, "--cores", "1", ARCHIVE)[0] == 0


@pytest.mark.parametrize(
    "options",
    [["--dry-run", ARCHIVE], ["--summary", ARCHIVE], ["--unlock"], ["--list-rules"]],
    ids=lambda options: options[0],
)
def test_what_runs_no_job_needs_no_profile(folder, options):
    status, said = snakemake(folder, *options)
    assert status == 0 and "no profile" not in said, said


def test_the_local_profile_prints_messages_of_jobs_without_their_reasons(folder):
    status, said = snakemake(folder, "--profile", "local", ARCHIVE)
    assert status == 0, said
    assert "Download or link the data set digits" in said and "1 of 1 steps (100%) done" in said
    assert "Reason:" not in said and "Host:" not in said and "squeue" not in said


def test_a_failed_job_is_still_reported_with_its_log(folder):
    (folder / "empty").mkdir()
    (folder / "config.local.yaml").write_text(
        "datasets: {mine: {source: folder, path: empty, resolution: 8, shards: 1}}"
    )
    status, said = snakemake(folder, "--profile", "local", "results/archives/mine/archive.json")
    assert status == 1
    assert "Error in rule download" in said and "logs/download/mine.log" in said and "holds no images" in said


def test_a_configuration_of_ones_own_is_read_without_being_named(folder):
    (folder / "config.local.yaml").write_text("datasets: {own: {source: digits, resolution: 8, shards: 1}}\n")
    status, said = snakemake(folder, "--dry-run", "results/archives/own/archive.json")
    assert status == 0 and "Download or link the data set own" in said, said
    # A file that is named comes last.
    (folder / "named.yaml").write_text("datasets: {own: {shards: 3}}\n")
    status, said = snakemake(
        folder, "--dry-run", "results/data/own/manifest.json", "--configfile", str(folder / "named.yaml")
    )
    assert status == 0 and "Cut own into shards, 2 of 3" in said, said


def test_results_that_nothing_makes_are_left_out_of_reports_with_a_note(folder):
    assert snakemake(folder, "--dry-run", "existing")[1].splitlines()[-1] == (
        "error: there is no result yet; make one, for example with make demo"
    )
    (folder / "results/tables").mkdir(parents=True)
    for name in ("stranger_fid.csv", "digits_fid.csv", "tables/mine.csv", "tables/table9.csv"):
        (folder / "results" / name).touch()
    status, said = snakemake(folder, "--summary", "existing")
    assert status == 0, said
    note = "makes results/stranger_fid.csv, results/tables/mine.csv; left out. If another file defines it"
    assert said.count(note) == 1
    assert all(f"\n{path}\t" in said for path in ("results/digits_fid.csv", "results/tables/table9.csv")), said
