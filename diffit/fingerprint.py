"""Fingerprints of source code, so that results are made anew after an edit that matters and after no other.

A fingerprint is the sha256 of the syntax trees of a verb and of what it computes with, without comments, docstrings
and formatting. It reads sources and imports nothing, so that a dry run stays fast.
"""

import ast
import hashlib
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent

# Modules that move, name or check results and compute none of them: an edit there reruns nothing.
BOOKKEEPING = frozenset(
    f"diffit.{name}"
    for name in ["cli", "config", "consistency", "cluster", "files", "fingerprint", "journal", "state", "tars"]
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
    """The git commit of the running sources, with ``-dirty`` where they were edited since; ``unknown`` outside git."""
    git = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


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
