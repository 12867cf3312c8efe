"""What changes the fingerprint of a stage and what does not, on a small package of its own and on the real one."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tqdm
from helpers.places import REPOSITORY, other_python

from diffit.data.sources import SOURCES
from diffit.nets import NETWORKS
from diffit.process import PROCESSES
from diffit.store import fingerprint as module
from diffit.store.fingerprint import BOOKKEEPING, fingerprint

# All modules of the package; those that are only registries and documentation have no code to compare.
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in (REPOSITORY / "diffit").rglob("*.py")
    if path.name != "__init__.py"
)
STAGE = '''"""What it does."""

import json

from diffit import module_
from diffit.store import files


# A comment.
def main(x):
    """What it does in detail."""
    from diffit.late import add  # loaded late

    return add(module_.double(x), 1)
'''
MODULE = '"""A module_."""\n\nfrom diffit.nets.deep import FACTOR\n\n\ndef double(x):\n    return FACTOR * x\n'
LATE = "def add(a, b):\n    return a + b\n"
DEEP = "FACTOR = 2\n"
BOOKKEEPING_MODULE = "def seal(path):\n    return path\n"


def forget() -> None:
    """Forget what was read: a process reads each module once, and here edits come in between."""
    module._read.cache_clear()
    module._fingerprint.cache_clear()


class Package:
    """A package in a temporary folder that stands for ``diffit``."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def fingerprint(self, *stages: str) -> str:
        forget()
        return fingerprint([f"diffit.{stage}" for stage in stages])


@pytest.fixture
def package(tmp_path, monkeypatch):
    made = Package(tmp_path / "diffit")
    for name, text in {
        "stage.py": STAGE, "module_.py": MODULE, "late.py": LATE, "store/files.py": BOOKKEEPING_MODULE,
        "unused.py": "X = 1\n",
        "nets/__init__.py": "from diffit.nets.deep import FACTOR\n", "nets/deep.py": DEEP,
    }.items():  # fmt: skip
        made.write(name, text)
    monkeypatch.setattr(module, "PACKAGE", made.folder)
    yield made
    forget()


@pytest.mark.parametrize(
    "old, new",
    [
        ("# A comment.", "# Another one, longer.\n# And more."),
        ('"""What it does."""', '"""What it does, told better."""'),
        ('    """What it does in detail."""\n', ""),
        ("  # loaded late", ""),
        ("return add(module_.double(x), 1)", "return add(\n        module_.double(x),\n        1,\n    )"),
        ("return add(module_.double(x), 1)", "return (add(module_.double(x), 0x1))"),
    ],
    ids=["comment", "docstring", "docstring removed", "trailing comment", "line breaks", "parentheses and spelling"],
)
def test_what_python_does_not_run_keeps_it(package, old, new):
    before = package.fingerprint("stage")
    package.edit("stage.py", old, new)
    assert package.fingerprint("stage") == before


def test_the_docstring_of_a_class_or_of_a_module_that_is_nothing_else_keeps_it(package):
    package.write("stage.py", 'class A:\n    """One."""\n')
    before = package.fingerprint("stage")
    package.write("stage.py", 'class A:\n    """Two."""\n')
    assert package.fingerprint("stage") == before


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("stage.py", "1)", "2)"),
        ("stage.py", "def main(x)", "def main(x=0)"),
        ("module_.py", "FACTOR * x", "FACTOR * x * 1.0"),
        ("late.py", "a + b", "b + a"),
        ("nets/deep.py", "2", "3"),
    ],
    ids=[
        "its own code",
        "a default",
        "a module that it imports",
        "an import inside a function",
        "an import of an import",
    ],
)
def test_code_that_it_computes_with_changes_it(package, name, old, new):
    before = package.fingerprint("stage")
    package.edit(name, old, new)
    assert package.fingerprint("stage") != before


def test_a_text_that_is_not_a_docstring_counts(package):
    package.write("stage.py", 'def main():\n    return "one"\n')
    before = package.fingerprint("stage")
    package.write("stage.py", 'def main():\n    return "two"\n')
    assert package.fingerprint("stage") != before


def test_bookkeeping_unused_and_new_modules_keep_it(package):
    before = package.fingerprint("stage")
    package.edit("store/files.py", "return path", "return str(path)")
    package.edit("unused.py", "1", "2")
    package.edit("nets/__init__.py", "FACTOR", "FACTOR as F")
    package.write("nets/novel.py", "class Novel:\n    pass\n")
    assert package.fingerprint("stage") == before


def test_an_import_that_only_names_types_does_not_count(package):
    package.write("stage.py", "if TYPE_CHECKING:\n    from diffit.late import add\n" + STAGE.replace("late", "module_"))
    before = package.fingerprint("stage")
    package.edit("late.py", "a + b", "b + a")
    assert package.fingerprint("stage") == before


def test_modules_that_the_caller_names_count_whatever_their_order(package):
    both = package.fingerprint("stage", "unused")
    assert both == package.fingerprint("unused", "stage")
    assert both != package.fingerprint("stage")
    package.edit("unused.py", "1", "2")
    assert package.fingerprint("stage", "unused") != both


def test_circular_imports_end(package):
    package.write("late.py", "import diffit.stage\n" + LATE)
    assert package.fingerprint("stage") == package.fingerprint("stage")


def test_it_is_sixteen_hex_digits_the_same_in_every_place(package, tmp_path, monkeypatch):
    before = package.fingerprint("stage")
    assert len(before) == 16 and int(before, 16) >= 0
    moved = package.folder.rename(tmp_path / "moved")
    monkeypatch.setattr(module, "PACKAGE", moved)
    assert package.fingerprint("stage") == before


def test_a_module_that_does_not_exist_fails_with_its_path(package):
    with pytest.raises(FileNotFoundError, match=r"nets/missing\.py"):
        package.fingerprint("nets.missing")


def test_a_syntax_error_names_the_file(package):
    package.write("late.py", "def add(:\n")
    with pytest.raises(SyntaxError) as error:
        package.fingerprint("stage")
    assert error.value.filename.endswith("late.py")


def test_each_bookkeeping_module_exists():
    paths = [REPOSITORY.joinpath(*name.split(".")) for name in BOOKKEEPING]
    assert [path for path in paths if not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())] == []


def test_a_copy_of_the_package_runs_by_itself_and_knows_its_commit(tmp_path):
    folder = module.copy(tmp_path / "code")
    assert module.copy(tmp_path / "code") == folder  # the same content is copied once
    assert [path.name for path in (tmp_path / "code").iterdir()] == [folder.name]
    say = "from diffit.store import fingerprint as f; print(f.PACKAGE, f.commit(), f.fingerprint(['diffit.train']))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    said = subprocess.run(
        [sys.executable, "-P", "-c", say], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(folder / "diffit"), module.commit(), fingerprint(["diffit.train"])]


def test_another_content_is_another_copy(package, tmp_path):
    before = module.copy(tmp_path / "code")
    package.edit("stage.py", "# A comment.", "# Another one.")  # the fingerprint stays
    after = module.copy(tmp_path / "code")
    assert after != before and (before / "diffit/stage.py").read_text() == STAGE


def reached(*modules: str, without: tuple[str, ...] = ()) -> set[str]:
    """The modules of the package that a fingerprint covers."""
    pending, seen = list(modules), set()
    while pending:
        name = pending.pop()
        if name in seen or any(name == left or name.startswith(f"{left}.") for left in (*BOOKKEEPING, *without)):
            continue
        seen.add(name)
        pending += module._read(name)[1]
    return seen


def test_the_reader_of_a_data_source_concerns_its_own_data_sets_only():
    for source in SOURCES.values():
        others = {other.module for other in SOURCES.values()} - {source.module}
        for stage in ("download", "shard"):
            assert not reached(f"diffit.{stage}", source.module) & others
            assert not reached(f"diffit.{stage}") & {source.module}
    readers = {source.module for source in SOURCES.values()} | {"diffit.data.imagenet_parquet"}
    for stage in ("encode", "train", "sample", "measure", "score", "scoring.reference", "tabulate"):
        assert not reached(f"diffit.{stage}") & readers


def test_figures_tables_plans_and_preflight_concern_no_data_training_samples_or_scores():
    for stage in ("download", "shard", "encode", "train", "sample", "measure", "score", "scoring.reference"):
        found = {name.split(".")[1] for name in reached(f"diffit.{stage}")}
        assert not found & {"paper", "planning", "tabulate"}


def test_networks_and_processes_concern_only_the_runs_that_have_them():
    kinds = {entry.module for entry in [*NETWORKS.values(), *PROCESSES.values()]}
    for stage in ("sample", "train"):
        assert not reached(f"diffit.{stage}") & kinds


@pytest.fixture(params=["3.12", "3.13"])
def python(request) -> str:
    """Another supported interpreter than this one."""
    found = other_python(request.param)
    if found is None:
        pytest.skip(f"there is no Python {request.param} here")
    return found


# What versions of Python parse into different trees: f-strings, empty lists of arguments and of type parameters.
TRICKY = '''
def f(x, *, w=3, **rest) -> str:
    text = f"{x}" f"{x!r:>{w}}" "a" f"{{b}}{x:<{w}.{w}}c" f"" f"{x=}" u"d"
    return text + f"{f'{x}'}" + f"""{x:
}"""


class A:
    async def g(self): ...


def h(): return lambda: 0
'''


def test_every_version_of_python_gives_the_same_text_of_a_syntax_tree(python):
    say = f"import ast; from diffit.store.fingerprint import _text; print(*_text(ast.parse({TRICKY!r})), sep='')"
    places = os.pathsep.join([str(REPOSITORY), str(Path(tqdm.__file__).parents[1])])
    said = subprocess.run([python, "-c", say], env={"PYTHONPATH": places}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "".join(module._text(ast.parse(TRICKY)))


def test_every_version_of_python_gives_the_same_fingerprint(python):
    say = f"from diffit.store.fingerprint import fingerprint as f; print(*[f([m]) for m in {MODULES}])"
    places = os.pathsep.join([str(REPOSITORY), str(Path(tqdm.__file__).parents[1])])
    said = subprocess.run([python, "-c", say], env={"PYTHONPATH": places}, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [fingerprint([name]) for name in MODULES]
