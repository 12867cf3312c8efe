"""Fingerprints of source code: results are made again after an edit that matters and after no other.

A fingerprint is the sha256 of the syntax trees of a stage and of the modules that it computes with, without comments,
docstrings and formatting. Sources are read and not imported, so that a dry run stays fast. All versions of Python give
the same fingerprint for the same source.
"""

import ast
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from diffit.store.files import canonical, sha256, sha256_of

PACKAGE = Path(__file__).resolve().parent.parent
COMMIT = "commit"

# Modules that move, name, check or describe results and compute none of them: an edit there reruns nothing. A name
# stands for a package and all in it. Registries are among them: what an entry says reaches a fingerprint as ``facts``,
# and the modules that it names are given by name.
BOOKKEEPING = (
    "diffit.cli",
    "diffit.config",
    "diffit.fetch",
    "diffit.launch",
    "diffit.planning",
    "diffit.registry",
    "diffit.runs",
    "diffit.slurm",
    "diffit.store",
    "diffit.data.origins",
    "diffit.data.sources",
    "diffit.nets.shapes",
    "diffit.numerics.precision",
    "diffit.process.samplers",
    "diffit.scoring.protocols",
    "diffit.weights.settings",
)


def fingerprint(modules: Iterable[str], without: Iterable[str] = (), facts: object = None) -> str:
    """Sixteen hex digits for modules and all that they import from this package.

    Args:
        modules: modules by their full names, ``"diffit.sample"``.
        without: further modules to leave out, besides those of ``BOOKKEEPING``.
        facts: a JSON value that is part of the fingerprint, such as the entry of a registry.
    """
    return _fingerprint(tuple(modules), tuple(without), "" if facts is None else canonical(facts))


@cache  # a dry run of all tables asks thousands of times
def _fingerprint(modules: tuple[str, ...], without: tuple[str, ...], facts: str) -> str:
    left_out = (*BOOKKEEPING, *without)
    pending, seen = list(modules), {}
    while pending:
        name = pending.pop()
        if name in seen or any(name == prefix or name.startswith(f"{prefix}.") for prefix in left_out):
            continue
        seen[name], imported = _read(name)
        pending += imported
    lines = [f"{name} {seen[name]}" for name in sorted(seen)]
    if facts:
        lines.append(facts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


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
def _read(name: str) -> tuple[str, list[str]]:
    """The hash of a module's syntax tree, and the modules of this package that it imports."""
    path = _path(name)
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported = _imports(tree)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256("".join(_text(tree)).encode()).hexdigest(), imported


def _path(name: str) -> Path:
    """The source of a module: of this package, or of another one that adds to its registries."""
    if name.startswith("diffit."):
        return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
    return Path(importlib.util.find_spec(name).origin)


def _text(node: object) -> Iterator[str]:
    """A syntax tree as text. What is empty is left out: versions of Python differ in which empty fields they have.

    Those versions also split the text of an f-string differently, so that neighbouring parts are joined.
    """
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in sorted(ast.iter_fields(node)):
            if value is None or value == [] or name in ("ctx", "kind", "type_comment"):
                continue
            yield f"{name}="
            yield from _text(_joined(value) if isinstance(node, ast.JoinedStr) else value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _text(item)
            yield ","
        yield "]"
    else:
        yield repr(node)


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string without empty texts and with neighbouring texts as one."""
    joined: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and part.value == "":
            continue
        if isinstance(part, ast.Constant) and joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(joined[-1].value + part.value)
        else:
            joined.append(part)
    return joined


def _imports(tree: ast.Module) -> list[str]:
    """The modules of this package that a syntax tree imports, also inside functions; not those that only name types."""
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    ignored = {id(child) for node in types for child in ast.walk(node)}
    names = []
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("diffit.") and _is_module(name)]


def _is_module(name: str) -> bool:
    return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file()
