"""The commands of README.md and docs/, and what the tests do with each of them.

    python tests/helpers/documentation.py

prints all commands with what is done. Rules are patterns, so that a text may change its examples; a command that no
rule knows fails tests/workflow/test_documentation.py.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.places import REPOSITORY

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*/*.md", "results/README.md")
VERBS = (
    "make|snakemake|python[0-9.]*|pip|git|cd|export|source|mkdir|ln|tar|curl|wget|tmux|"
    "sbatch|srun|squeue|scancel|scontrol|sacct|sinfo|docker|apptainer|conda"
)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:(?:{VERBS})|\.venv/bin/\S+) +\S")
SHELLS = ("sh", "bash", "console", "shell")
NEEDED = ("tests/helpers/mutants.lock",)  # of tests/ in a clone
OWN_IMAGES = "/path/to/images"
# What is done with a command. "exists" asks whether the target or module exists, "listed" does nothing.
RUN, RUN_LATER, DRY_RUN, DRY_RUN_LATER = "run", "run (slow)", "dry run", "dry run (slow)"
TINY, SLURM, HELP = "run on tiny data (slow)", "run on the test cluster", "--help"
EXISTS, LISTED = "exists", "listed"


@dataclass(frozen=True)
class Command:
    """A command as a document prints it, without prompt and comment."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Rule:
    """What is done with the commands that a pattern matches from their start; ``reason`` why they are not run."""

    pattern: str
    how: str
    reason: str = ""


SNAKEMAKE = r"(\.venv/bin/)?snakemake .*"
PYTHON = r"(PYTHONPATH=\. )?(\.venv/bin/)?python[0-9.]* "
RULES = [
    Rule(r"make (install|PYTHON=)", EXISTS, "installs from the package index; a fresh clone in CI runs it"),
    Rule(r"make (test|test-slow|test-slurm|test-pythons)\b", EXISTS, "runs the tests themselves"),
    Rule(r"make (lint|format)\b", EXISTS, "changes or checks this repository; CI runs make lint"),
    Rule(r"make (bench|quality)\b", EXISTS, "measures for an hour; tests/bench tests a part"),
    Rule(r"make mutants\b", EXISTS, "installs a tool of its own and runs for hours"),
    Rule(PYTHON + r"-m pytest\b", LISTED, "runs the tests themselves"),
    Rule(r"\.ci/run", LISTED, "runs all of this"),
    Rule(r"make help", RUN),
    Rule(r"make plan\b(?!.*GOAL=results/)", RUN_LATER),
    Rule(r"make plan\b", RUN),
    Rule(r"make preflight\b", SLURM),
    Rule(r"make toy-tables", DRY_RUN_LATER),
    Rule(r"make (demo|report|accept)\b", TINY),
    Rule(SNAKEMAKE + r"(-n|--dry-run)\b", RUN),
    Rule(SNAKEMAKE + r"--unlock", RUN),
    Rule(SNAKEMAKE + r"--lint", LISTED, "make lint runs it"),
    Rule(SNAKEMAKE + r" (toy_)?tables\b", DRY_RUN_LATER),
    Rule(SNAKEMAKE + r"(OWN)", TINY),
    Rule(SNAKEMAKE, DRY_RUN),
    Rule(PYTHON + r"-m diffit\.score\b", TINY),
    Rule(PYTHON + r"-m diffit\.paper\.histogram", LISTED, "an extension; tests/registry/test_extending.py runs it"),
    Rule(PYTHON + r"-m diffit\.", HELP),
    Rule(PYTHON + r"-m bench\.quality", HELP),
    Rule(PYTHON + r"-m bench\.", EXISTS, "a benchmark, minutes long; make bench runs it"),
    Rule(PYTHON + r"gpu_check\.py", LISTED, "a script that is not in the repository; its output is a record"),
    Rule(r"\.venv/bin/tensorboard ", TINY),
    Rule(r"(squeue -o|scontrol update jobid=)", SLURM),
    Rule(r"(sbatch|srun) --", LISTED, "an option that SLURM's users know; tests/slurm tests what depends on it"),
    Rule(r"(scancel|squeue|sacct|sinfo|scontrol) ", LISTED, "SLURM's own command; tests/slurm uses it"),
    Rule(r"git (clone|tag|push)", LISTED, "needs an address"),
    Rule(r"(cd|export|source|mkdir|ln|tmux) ", LISTED, "a command of the shell"),
]


# ---------------------------------------------------------------------------------------------------- extraction


@cache
def commands() -> tuple[Command, ...]:
    """The commands of all documents, each text once."""
    found: dict[str, Command] = {}
    for pattern in DOCUMENTS:
        for path in sorted(REPOSITORY.glob(pattern)):
            for command in commands_of(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")):
                found.setdefault(command.text, command)
    return tuple(found.values())


def commands_of(file: str, text: str) -> Iterator[Command]:
    """The commands in the code blocks of a document and between its backticks."""
    prose = list(text.splitlines())
    for first, language, lines in _blocks(text):
        for number, line in _joined(first, lines):
            if command := _of_line(language, line):
                yield Command(file, number, command)
        for number in range(first - 1, first + len(lines) + 1):
            prose[number - 1] = ""
    for number, line in enumerate(prose, 1):
        if line.startswith("    ") and COMMAND.match(line.strip()):
            yield Command(file, number, _without_comment(line.strip()))
            prose[number - 1] = ""
    for match in re.finditer(r"`([^`]+)`", "\n".join(prose)):
        inline = " ".join(match[1].split())
        if "\n\n" not in match[1] and COMMAND.match(inline):
            yield Command(file, "\n".join(prose)[: match.start()].count("\n") + 1, inline)


def yaml_blocks() -> Iterator[dict]:
    """The YAML examples of all documents."""
    for pattern in DOCUMENTS:
        for path in sorted(REPOSITORY.glob(pattern)):
            for _, language, lines in _blocks(path.read_text(encoding="utf-8")):
                if language == "yaml":
                    yield yaml.safe_load("\n".join(lines))


def _blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Fenced code blocks: number of the first line, language, lines."""
    opened, language, lines = 0, "", []
    for number, line in enumerate(text.splitlines(), 1):
        if fence := re.match(r" *```(\S*)", line):
            if opened:
                yield opened, language, lines
                opened = 0
            else:
                opened, language, lines = number + 1, fence[1], []
        elif opened:
            lines.append(line)


def _joined(first: int, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines with those that follow a backslash."""
    number, whole = first, ""
    for offset, line in enumerate(lines):
        number = first + offset if not whole else number
        whole += line.strip()
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        yield number, whole
        whole = ""


def _of_line(language: str, line: str) -> str:
    """The command in a line of a code block. Blocks without a language also hold output."""
    line = line.strip()
    if language == "console" and not line.startswith("$ "):
        return ""
    line = line.removeprefix("$ ")
    is_command = COMMAND.match(line) if language == "" else language in SHELLS and line and not line.startswith("#")
    return _without_comment(line) if is_command else ""


def _without_comment(line: str) -> str:
    return re.sub(r"\s+#.*", "", line).strip()


# -------------------------------------------------------------------------------------------------- what is done


@cache
def own_example() -> dict:
    """The example with the user's own images, as printed; empty if no document has one."""
    examples = (block for block in yaml_blocks() if isinstance(block, dict))
    return next((block for block in examples if OWN_IMAGES in str(block) and "runs" in block), {})


def own_result() -> str:
    return f"results/{next(iter(own_example()['runs']), 'none')}_fid.csv" if own_example() else "results/none_fid.csv"


def rule_of(text: str) -> Rule | None:
    """The first rule that knows a command."""
    own = re.escape(own_result())
    return next((rule for rule in RULES if re.match(rule.pattern.replace("OWN", own), text)), None)


def unknown(command: Command) -> str:
    """What is wrong with a command that no rule knows; empty if one does."""
    if rule_of(command.text):
        return ""
    place = f"{command.file}:{command.line}"
    return f"{place}: `{command.text}` is neither run nor listed; see tests/helpers/documentation.py"


def those(*hows: str) -> list[str]:
    """The commands with which one of these is done."""
    return [command.text for command in commands() if (rule := rule_of(command.text)) and rule.how in hows]


def filled(text: str, goal: str) -> str:
    """A command with a goal for its placeholders."""
    text = re.sub(r"GOAL=(…|GOAL\b)", f"GOAL={goal}", text)
    text = re.sub(r"results/\{\w+\}_fid\.csv|(?<= )(…|GOAL)(?= |$)", goal, text)
    return re.sub(r"^snakemake ", ".venv/bin/snakemake ", text)


# ------------------------------------------------------------------------------------------------------- a clone


@dataclass(frozen=True)
class Clone:
    """A copy of the repository's files with the virtual environment of the repository."""

    folder: Path

    def run(self, command: str, environment: dict | None = None, timeout: int = 1800) -> subprocess.CompletedProcess:
        """Run a command as a user types it in the clone's folder."""
        # LOCK would make `make` replace the linked environment if it was installed from another lock.
        left_out = ("OMP_NUM_THREADS", "LOCK")
        variables = {name: value for name, value in (environment or os.environ).items() if name not in left_out}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**variables, "PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def write(self, name: str, values: dict) -> None:
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))

    def config(self) -> dict:
        return yaml.safe_load((self.folder / "config.yaml").read_text())


def clone(folder: Path) -> Clone:
    """Copy what git tracks, and what it would, to ``folder``."""
    git = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in filter(None, subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")):
        is_left_out = name.startswith((".venv", "tests/")) and name not in NEEDED
        if not is_left_out and os.path.lexists(REPOSITORY / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    (folder / ".venv").symlink_to(sys.prefix)
    return Clone(folder)


def main() -> None:
    for command in commands():
        rule = rule_of(command.text)
        done = f"{rule.how}: {rule.reason}" if rule and rule.reason else rule.how if rule else "UNKNOWN"
        print(f"{command.file}:{command.line}: {command.text}\n    {done}")


if __name__ == "__main__":
    main()
