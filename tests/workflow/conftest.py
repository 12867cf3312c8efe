"""The tiny workflow: its sources, its images, and what it makes, run once for all tests of this folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers.places import REPOSITORY
from helpers.workflow import ODD, RESULT, Workflow, tiny_config, write_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user") / f"pictures, {ODD}"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """The sources as a clone has them, committed, in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("clone") / ODD
    for name in ("diffit", "workflow"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(REPOSITORY / "Snakefile", folder)
    git = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Sources"]):
        subprocess.run([*git, *arguments], check=True)
    return folder


@pytest.fixture(scope="session")
def done(sources, pictures, inception, tmp_path_factory) -> Workflow:
    """The whole chain, run once. Tests leave it as they find it; those that make results take :func:`fork`."""
    workflow = Workflow(sources, tmp_path_factory.mktemp("work"))
    (workflow.folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(pictures, inception), sort_keys=False))
    ended = workflow.make(RESULT)
    assert ended.status == 0, ended.text
    return workflow


@pytest.fixture
def fork(done, tmp_path) -> Workflow:
    """A copy of the finished workflow with results of its own."""
    shutil.copytree(done.folder, tmp_path / "work", ignore=shutil.ignore_patterns("inception.pt"))
    os.link(
        done.folder / "results/archives/inception/inception.pt",
        tmp_path / "work/results/archives/inception/inception.pt",
    )
    return Workflow(done.sources, tmp_path / "work")
