"""Mutation testing with mutmut: small mistakes are put into a module, one at a time; its tests must notice each.

    make mutants MODULES="diffit/process/edm.py diffit/training/ema.py"      default: all modules of mutants.toml

Each module is tested in a copy of the repository, .cache/mutants/{module}, where mutmut keeps its results. A run that
was interrupted continues. After an edit of the module only the mutants of edited functions are tested again, after an
edit of a test only the survivors. docs/mutants.md is written from all results. mutmut changes functions and methods,
but not constants of modules and not functions with decorators other than staticmethod and classmethod.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mutmut.stats import status_by_exit_code

REPOSITORY = Path(__file__).resolve().parents[2]
COPIES = REPOSITORY / ".cache" / "mutants"
PAGE = REPOSITORY / "docs" / "mutants.md"
SETTINGS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
MUTMUT = [sys.executable, "-m", "mutmut"]
KILLED = {"killed", "timeout", "segfault"}
# Tests of processes of their own do not see the mutant, and heavy ones would take days.
PYTEST = ["-p", "no:cacheprovider", "-m", "not slow and not slurm", "-k", "not two_ranks"]


@dataclass
class Result:
    """The mutants of one module by status."""

    module: str
    status: dict[str, str]  # by the mutant's name

    def count(self, *statuses: str) -> int:
        return sum(status in statuses for status in self.status.values())

    @cached_property
    def survivors(self) -> dict[str, str]:
        """The changed lines of each mutant that was tested and not killed, by its name."""
        names = [name for name, status in self.status.items() if status not in KILLED | {"not checked", "skipped"}]
        return {name: change(self.module, name) for name in names}

    def reason(self, name: str) -> str | None:
        """Why a survivor may survive; None if mutants.toml does not explain it."""
        reasons = SETTINGS["explained"].get(self.module, {})
        new = [line for line in self.survivors[name].splitlines() if line.startswith("+")]
        return next((reason for code, reason in reasons.items() if any(code in line for line in new)), None)

    def explained(self) -> int:
        return sum(self.reason(name) is not None for name in self.survivors)

    def summary(self) -> str:
        parts = [
            f"{len(self.status)} mutants",
            f"{self.count(*KILLED)} killed",
            f"{len(self.survivors) - self.explained()} survived",
            f"{self.explained()} explained",
        ]
        parts += [f"{unchecked} not tested yet"] if (unchecked := self.count("not checked")) else []
        return f"{self.module}: {', '.join(parts)}"


def copy_of(module: str) -> Path:
    """The folder of a module's copy."""
    return COPIES / module.removesuffix(".py").replace("/", ".")


def update_copy(module: str) -> bool:
    """Make the copy equal to the working tree; return whether tests have changed in it.

    Unchanged files keep their times, so mutmut keeps its results.
    """
    folder = copy_of(module)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    names = {name for name in listed.split("\0") if (REPOSITORY / name).is_file() and not name.endswith(".png")}
    changed = set()
    for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]:
        name = path.relative_to(folder).as_posix()
        if name not in names and not name.startswith(("mutants/", "shared/")):
            path.unlink()
            (folder / "mutants" / name).unlink(missing_ok=True)
            changed.add(name)
    for name in names:
        target, content = folder / name, (REPOSITORY / name).read_bytes()
        if name == "pyproject.toml":
            content += configuration(module, sorted({name.split("/")[0] for name in names})).encode()
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            changed.add(name)
    # The tests find reference material beside their repository, which is the folder "mutants" of the copy.
    beside = folder / "shared"
    if (REPOSITORY.parent / "shared").is_dir() and not beside.is_symlink():
        beside.symlink_to((REPOSITORY.parent / "shared").resolve())
    return any(name.startswith("tests/") or name == "pyproject.toml" for name in changed)


def forget_survivors(module: str) -> None:
    """Have mutmut test the mutants again that were not killed, with new knowledge of which tests reach them."""
    folder = copy_of(module) / "mutants"
    (folder / "mutmut-stats.json").unlink(missing_ok=True)
    path = folder / f"{module}.meta"
    if path.is_file():
        meta = json.loads(path.read_text())
        codes = meta["exit_code_by_key"]
        kept = {name: code if status_by_exit_code[code] in KILLED else None for name, code in codes.items()}
        path.write_text(json.dumps({**meta, "exit_code_by_key": kept}))


def configuration(module: str, copied: list[str]) -> str:
    """The section of pyproject.toml that configures mutmut for a module."""
    settings = {
        "source_paths": ["diffit"],
        "only_mutate": [module],
        "also_copy": [name for name in copied if name != "diffit"],
        "pytest_add_cli_args": PYTEST,
        "pytest_add_cli_args_test_selection": SETTINGS["modules"][module],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(["", "[tool.mutmut]", *lines, "use_git_change_detection = false", ""])


def test(module: str, processes: int) -> None:
    """Test the mutants of a module that have no result yet."""
    folder = copy_of(module)
    if update_copy(module):
        forget_survivors(module)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [*MUTMUT, "run", "--max-children", str(processes)]
    ended = subprocess.run(command, cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, check=False)
    if ended.returncode:
        raise SystemExit(
            f"error: mutmut ended with status {ended.returncode} in {folder.relative_to(REPOSITORY)}; its message is "
            "above; check that the tests of the module pass"
        )


def read(module: str) -> Result | None:
    """The results of a module so far; None if mutmut found no mutant in it or has not run."""
    path = copy_of(module) / "mutants" / f"{module}.meta"
    codes = json.loads(path.read_text())["exit_code_by_key"] if path.is_file() else {}
    return Result(module, {name: status_by_exit_code[code] for name, code in codes.items()}) if codes else None


def change(module: str, name: str) -> str:
    """The changed lines of a mutant, from before and after."""
    shown = subprocess.run([*MUTMUT, "show", name], cwd=copy_of(module), capture_output=True, text=True, check=True)
    lines = [line for line in shown.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)


def page(results: list[Result]) -> str:
    """docs/mutants.md."""
    lines = [
        "# Mutation testing", "",
        "`make mutants` puts small mistakes (mutants) into a module, one at a time, and runs the tests of that module.",
        "A mutant that makes a test fail is killed. The table shows the modules that were tested so far. Constants of",
        "modules and functions with decorators are not mutated. Mutants are not reached if no test calls their",
        "function in its own process.", "",
        "| module | mutants | killed | survived | not reached | explained | killed or explained |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for r in results:
        unreached = sum(r.status[name] == "no tests" for name in r.survivors)
        share = (r.count(*KILLED) + r.explained()) / len(r.status)
        cells = [r.module, len(r.status), r.count(*KILLED), len(r.survivors) - unreached, unreached, r.explained()]
        lines.append("| " + " | ".join(map(str, cells)) + f" | {share:.1%} |")
    for r in results:
        lines += ["", f"## {r.module}"] if r.survivors else []
        for name, changed in r.survivors.items():
            reason = r.reason(name) or "not explained"
            lines += ["", f"`{name}` ({r.status[name]}): {reason}", "", "```diff", changed, "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="modules to test, as diffit/process/edm.py (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="mutants tested at a time")
    arguments = parser.parse_args()
    known = SETTINGS["modules"]
    for module in arguments.modules:
        if module not in known:
            raise SystemExit(
                f"error: {module} has no tests in tests/helpers/mutants.toml; add it there, or name one of "
                f"{', '.join(known)}"
            )
    for module in arguments.modules or known:
        test(module, arguments.processes)
        result = read(module)
        if result is None:
            raise SystemExit(f"error: mutmut found no mutant in {module}; remove it from tests/helpers/mutants.toml")
        print(result.summary(), flush=True)
    results = [result for module in known if (result := read(module))]
    PAGE.write_text(page(results))
    print(f"wrote {PAGE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
