"""Fingerprints of source code, so that results are made anew after an edit that matters and after no other.

A fingerprint is the sha256 of the syntax trees of a verb and of what it computes with, without comments, docstrings
and formatting. It reads sources and imports nothing, so that a dry run stays fast.
"""

import ast
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from diffit.files import sha256, sha256_of

PACKAGE = Path(__file__).parent
COMMIT = "commit"

# Modules that move, name or check results and compute none of them: an edit there reruns nothing.
BOOKKEEPING = frozenset(
    f"diffit.{name}"
    for name in (
        "cli",
        "config",
        "consistency",
        "cluster",
        "files",
        "fingerprint",
        "follow",
        "journal",
        "launch",
        "lock",
        "slurm",
        "state",
        "tars",
    )
) | {"diffit", "diffit.nets", "diffit.process"}


def fingerprint(modules: Iterable[str], without: Iterable[str] = ()) -> str:
    """Sixteen hex digits for the modules named (``"diffit.sample"``) and all that they import from this package.

    Modules of ``BOOKKEEPING`` are left out, also where they are imported, and those that the caller does ``without``.
    """
    left_out = BOOKKEEPING | set(without)
    pending, seen = list(modules), {}
    while pending:
        name = pending.pop()
        if name in seen or name in left_out:
            continue
        tree = _syntax(name)
        seen[name] = ast.dump(tree)
        pending += _imports(tree)
    text = "\n".join(f"{name} {seen[name]}" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def commit() -> str:
    """The git commit of the running sources, with ``-dirty`` where they were edited since; ``unknown`` outside git.

    Of a copy that :func:`copy` made, the commit of what it was copied from.
    """
    if (recorded := PACKAGE.with_name(COMMIT)).exists():
        return recorded.read_text()
    git = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def copy(folder: Path) -> Path:
    """Copy this package to ``folder/{hash of its content}/diffit``, where it is not there yet; returns the folder that
    holds it, for PYTHONPATH.
    """
    sources = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = {str(path.relative_to(PACKAGE)): sha256(path) for path in sources}
    target = folder / sha256_of([content, commit()])[:16]
    if target.exists():
        return target
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    shutil.copytree(PACKAGE, temporary / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    (temporary / COMMIT).write_text(commit())
    temporary.replace(target)
    return target


@cache
def _syntax(name: str) -> ast.Module:
    path = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(path.read_text(), filename=str(path))
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _imports(tree: ast.Module) -> list[str]:
    """The modules of this package that a syntax tree imports, at its top or inside a function."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("diffit.") and _is_module(name)]


def _is_module(name: str) -> bool:
    return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file()
