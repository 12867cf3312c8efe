"""The command line of every module: its --help, and one sentence for a wrong option or an incomplete JSON object."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.configurations import DIGITS, SMALL_VAE, TINY_RUN
from helpers.places import REPOSITORY

from diffit.store import fingerprint

PACKAGE = REPOSITORY / "diffit"
# Snakemake's command line with one more logger.
NOT_OURS = {"diffit.planning.dry_run"}
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if re.search(r"^if __name__ == ", path.read_text(), re.MULTILINE)
)
COMMANDS = [name for name in MODULES if name not in NOT_OURS]


def ended(module: str, monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status and output of a module's command, which ends while it reads its arguments."""
    monkeypatch.setattr(sys, "argv", [module.replace(".", "/"), *arguments])
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(module).main()
    out, err = capsys.readouterr()
    return exit_.value.code, out, err


def test_all_stages_are_among_the_commands():
    assert {"download", "shard", "encode", "train", "sample", "measure", "score", "tabulate"} <= {
        name.removeprefix("diffit.") for name in COMMANDS
    }
    assert len(COMMANDS) >= 24 and set(MODULES) >= NOT_OURS


@pytest.mark.parametrize("module", COMMANDS)
def test_help_says_what_a_command_does_and_what_each_option_is(module, monkeypatch, capsys):
    parsers = []
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda self, *rest: parsers.append(self) or parse(self, *rest)
    )
    status, out, err = ended(module, monkeypatch, capsys, "--help")
    assert (status, err) == (0, "")
    (parser,) = parsers
    first = parser.description.strip().split("\n\n")[0]
    assert re.search(r"\w.{20,}[.:]$", first, re.DOTALL), f"no sentence: {first!r}"
    assert first in out
    for action in parser._actions:
        assert action.help and len(action.help) >= 6, f"{action.option_strings or action.dest} has no help"


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_option_is_one_sentence_after_the_usage(module, monkeypatch, capsys):
    status, _, err = ended(module, monkeypatch, capsys, "--nonsense")
    assert status == 2 and err.startswith("usage: ") and ": error: " in err.splitlines()[-1]


SAMPLER = {"kind": "heun", "steps": 2, "images": 4}
GRID = {"rows": 1, "columns": 1, "classes": None}
TABLE = {"title": "T", "name": "model", "columns": [{"key": "a", "heading": "A", "group": "", "digits": 2}],
         "rows": [], "notes": []}  # fmt: skip
RESULT = {"run": "mine", "paper": {"source": ""}, "baselines": []}
NETWORK = {"runs": {"a": {"dataset": "d", "vae": None, "net": {}, "process": {}}}, "datasets": {}, "vaes": {}}
RELEASE = {
    "dataset": "d", "resolution": 256, "net": {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 1,
    "num_heads": 2}, "process": {"kind": "ddpm"}, "weights": {"repository": "a/b", "file": "f", "classes": 0},
}  # fmt: skip
# The command, its arguments around the JSON object, the object, and one key that it cannot do without.
OBJECTS = [
    ("download", "{} out", DIGITS, "resolution"),
    ("shard", "{} archive out/0-of-1.tar", DIGITS, "resolution"),
    ("train", "{} data run --kimg 1", TINY_RUN, "net"),
    ("sample", "{} milestone out/0-of-1.tar", SAMPLER, "steps"),
    ("tabulate", "{} out.csv --scores a.json --samples s", RESULT, "paper"),
    ("training.train_vae", "{} data out", SMALL_VAE, "channels"),
    ("weights.vae", "{} out", {"repository": "a/b", "revision": "0" * 40, "scale": 1}, "scale"),
    ("weights.release", "{} vae out", RELEASE, "weights"),
    ("paper.table", "{} out.csv", TABLE, "columns"),
    ("paper.plot", "{} out.png", TABLE | {"figure": {"x": "a", "y": ["a"], "together": False}}, "figure"),
    ("paper.image_grid", "out.png {} samples", GRID, "rows"),
    ("paper.network_diagram", "out.png {}", NETWORK, "runs"),
    ("paper.attention_maps", "out.png {} milestone", SAMPLER, "images"),
]


def test_every_command_with_a_json_object_is_tried():
    takes = {name for name in COMMANDS if "described(" in (REPOSITORY / f"{name.replace('.', '/')}.py").read_text()}
    assert {f"diffit.{name}" for name, *_ in OBJECTS} == takes


@pytest.mark.parametrize(("module", "arguments", "value", "key"), OBJECTS)
def test_an_incomplete_or_wrong_json_object_names_the_key(module, arguments, value, key, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def said(described: object) -> str:
        text = described if isinstance(described, str) else json.dumps(described)
        given = [text if part == "{}" else part for part in arguments.split()]
        status, _, err = ended(f"diffit.{module}", monkeypatch, capsys, *given)
        last = err.splitlines()[-1]
        assert status == 2 and "Traceback" not in err and last.startswith(("usage", module.split(".")[-1])), err
        return last

    without = said({name: inner for name, inner in value.items() if name != key})
    assert f"lacks the key {key!r}; add it; " in without or f"without {key!r}; add it" in without
    assert "describes the keys" in without
    assert re.search(rf"{key}(\.0)? is \[?7\.5\]?, but must be", said({**value, key: [7.5]}))
    assert "is nan; write a finite number" in said({**value, key: float("nan")})
    assert "is not a JSON object" in said("[]")
    assert "is not JSON" in said("{")


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("planning.plan", "--peak-tflops nan", "'nan' is not a positive number"),
        ("planning.plan", "--utilization 2", "2 is not between 0 and 1"),
        ("planning.plan", f"--gpus {10**40}", "is not a positive integer below 2^53"),
        ("planning.plan", "--images ffhq64", "'ffhq64' is not DATASET=COUNT, such as ffhq64=70000"),
        ("planning.preflight", "--wait 0", "'0' is not a positive integer"),
        ("planning.accounting", "out.csv train", "'train' is not STAGE=PATH"),
        ("measure", "a b --network n --batch -1", "argument --batch"),
        ("train", "{} a b --kimg 1.0", "'1.0' is not a non-negative integer"),
        ("train", "{} a b --kimg 1 --checkpoint-minutes inf", "'inf' is not a finite number from 0 on"),
    ],
)
def test_a_wrong_number_in_an_option_is_one_sentence(module, arguments, sentence, monkeypatch, capsys):
    given = arguments.replace("{}", json.dumps(TINY_RUN).replace(" ", "")).split()
    status, _, err = ended(f"diffit.{module}", monkeypatch, capsys, *given)
    assert status == 2 and sentence in err.splitlines()[-1]


def test_a_copy_of_the_package_reads_its_arguments_without_the_workflow(tmp_path):
    """A queued training runs from such a copy, beside which there is no workflow/ with schemas."""
    copied = fingerprint.copy(tmp_path / "code")
    assert not (copied / "workflow").exists()
    environment = {**os.environ, "PYTHONPATH": str(copied)}
    command = [sys.executable, "-m", "diffit.train", json.dumps(TINY_RUN), "data", "run", "--kimg", "1"]
    tried = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert tried.returncode == 1 and tried.stderr.startswith("error: data/manifest.json is missing"), tried.stderr
    where = [sys.executable, "-c", "import diffit; print(diffit.__file__)"]
    shown = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(shown.stdout.strip()).is_relative_to(copied)


@pytest.mark.parametrize("described", [DIGITS, TINY_RUN, SMALL_VAE], ids=["data set", "run", "VAE"])
def test_a_complete_object_reaches_the_command_as_it_was_given(described):
    from diffit.config.schema import images_schema, run_schema
    from diffit.registry.arguments import described as argument
    from diffit.weights.settings import one_kind

    schema = {"source": images_schema, "training": run_schema, "kl_weight": lambda: one_kind("trained")}
    parse = argument("it", next(schema[key] for key in schema if key in described))
    assert parse(json.dumps(described)) == described
