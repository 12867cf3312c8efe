"""What changes the fingerprint of a verb and what does not, on a small package of its own."""

import os
import subprocess
import sys

import pytest
from helpers.places import REPOSITORY

from diffit.store import fingerprint as module
from diffit.store.fingerprint import BOOKKEEPING, fingerprint

VERB = '''"""What it does."""

import json

from diffit import files, noun


# A comment.
def main(x):
    """What it does in detail."""
    from diffit.late import add  # loaded late

    return add(noun.double(x), 1)
'''
NOUN = '"""A noun."""\n\nfrom diffit.nets.deep import FACTOR\n\n\ndef double(x):\n    return FACTOR * x\n'
LATE = "def add(a, b):\n    return a + b\n"
DEEP = "FACTOR = 2\n"
BOOKKEEPER = "def seal(path):\n    return path\n"


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

    def fingerprint(self, *verbs: str) -> str:
        module._read.cache_clear()  # each process reads a module once; here edits come in between
        return fingerprint([f"diffit.{verb}" for verb in verbs])


@pytest.fixture
def package(tmp_path, monkeypatch):
    made = Package(tmp_path / "diffit")
    for name, text in {
        "verb.py": VERB, "noun.py": NOUN, "late.py": LATE, "files.py": BOOKKEEPER, "unused.py": "X = 1\n",
        "nets/__init__.py": "from diffit.nets.deep import FACTOR\n", "nets/deep.py": DEEP,
    }.items():  # fmt: skip
        made.write(name, text)
    monkeypatch.setattr(module, "PACKAGE", made.folder)
    yield made
    module._read.cache_clear()


@pytest.mark.parametrize(
    "old, new",
    [
        ("# A comment.", "# Another one, longer.\n# And more."),
        ('"""What it does."""', '"""What it does, told better."""'),
        ('    """What it does in detail."""\n', ""),
        ("  # loaded late", ""),
        ("return add(noun.double(x), 1)", "return add(\n        noun.double(x),\n        1,\n    )"),
        ("return add(noun.double(x), 1)", "return (add(noun.double(x), 0x1))"),
    ],
    ids=["comment", "docstring", "docstring removed", "trailing comment", "line breaks", "parentheses and spelling"],
)
def test_what_python_does_not_run_keeps_it(package, old, new):
    before = package.fingerprint("verb")
    package.edit("verb.py", old, new)
    assert package.fingerprint("verb") == before


def test_the_docstring_of_a_class_or_of_a_module_that_is_nothing_else_keeps_it(package):
    package.write("verb.py", 'class A:\n    """One."""\n')
    before = package.fingerprint("verb")
    package.write("verb.py", 'class A:\n    """Two."""\n')
    assert package.fingerprint("verb") == before


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("verb.py", "1)", "2)"),
        ("verb.py", "def main(x)", "def main(x=0)"),
        ("noun.py", "FACTOR * x", "FACTOR * x * 1.0"),
        ("late.py", "a + b", "b + a"),
        ("nets/deep.py", "2", "3"),
    ],
    ids=["its own code", "a default", "a noun", "an import inside a function", "an import of an import"],
)
def test_code_that_it_computes_with_changes_it(package, name, old, new):
    before = package.fingerprint("verb")
    package.edit(name, old, new)
    assert package.fingerprint("verb") != before


def test_a_text_that_is_no_docstring_counts(package):
    package.write("verb.py", 'def main():\n    return "one"\n')
    before = package.fingerprint("verb")
    package.write("verb.py", 'def main():\n    return "two"\n')
    assert package.fingerprint("verb") != before


def test_bookkeeping_unused_and_new_modules_keep_it(package):
    before = package.fingerprint("verb")
    package.edit("files.py", "return path", "return str(path)")
    package.edit("unused.py", "1", "2")
    package.edit("nets/__init__.py", "FACTOR", "FACTOR as F")
    package.write("nets/novel.py", "class Novel:\n    pass\n")
    assert package.fingerprint("verb") == before


def test_modules_that_the_caller_names_count_whatever_their_order(package):
    both = package.fingerprint("verb", "unused")
    assert both == package.fingerprint("unused", "verb")
    assert both != package.fingerprint("verb")
    package.edit("unused.py", "1", "2")
    assert package.fingerprint("verb", "unused") != both


def test_circular_imports_end(package):
    package.write("late.py", "import diffit.verb\n" + LATE)
    assert package.fingerprint("verb") == package.fingerprint("verb")


def test_it_is_sixteen_hex_digits_the_same_in_every_place(package, tmp_path, monkeypatch):
    before = package.fingerprint("verb")
    assert len(before) == 16 and int(before, 16) >= 0
    moved = package.folder.rename(tmp_path / "moved")
    monkeypatch.setattr(module, "PACKAGE", moved)
    assert package.fingerprint("verb") == before


def test_a_module_that_does_not_exist_fails_with_its_path(package):
    with pytest.raises(FileNotFoundError, match=r"nets/missing\.py"):
        package.fingerprint("nets.missing")


def test_a_syntax_error_names_the_file(package):
    package.write("late.py", "def add(:\n")
    with pytest.raises(SyntaxError) as error:
        package.fingerprint("verb")
    assert error.value.filename.endswith("late.py")


def test_each_bookkeeping_module_exists():
    paths = [REPOSITORY.joinpath(*name.split(".")) for name in BOOKKEEPING]
    assert [path for path in paths if not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())] == []


def test_a_copy_of_the_package_runs_by_itself_and_knows_its_commit(tmp_path):
    folder = module.copy(tmp_path / "code")
    assert module.copy(tmp_path / "code") == folder  # the same content is copied once
    assert [path.name for path in (tmp_path / "code").iterdir()] == [folder.name]
    say = "from diffit import fingerprint as f; print(f.PACKAGE, f.commit(), f.fingerprint(['diffit.train']))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    said = subprocess.run(
        [sys.executable, "-P", "-c", say], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(folder / "diffit"), module.commit(), fingerprint(["diffit.train"])]


def test_another_content_is_another_copy(package, tmp_path):
    before = module.copy(tmp_path / "code")
    package.edit("verb.py", "# A comment.", "# Another one.")  # the fingerprint stays
    after = module.copy(tmp_path / "code")
    assert after != before and (before / "diffit/verb.py").read_text() == VERB
