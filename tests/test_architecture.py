"""The structure of the package: which imports are allowed, one door per third-party service, sizes, names."""

import ast
import re
from functools import cache
from pathlib import Path

from helpers.places import REPOSITORY

PACKAGE = REPOSITORY / "diffit"
STAGES = {"download", "shard", "encode", "train", "sample", "measure", "score", "tabulate"}
# An import leads to the same package or to one of an earlier line.
LAYERS = [
    {"cli", "slurm"},
    {"registry"},
    {"numerics", "store"},
    {"fetch"},
    {"data", "nets", "process"},
    {"weights", "scoring"},
    {"config"},
    {"runs"},
    {"training"},
    {"launch", "planning", "paper"},
    STAGES,
]
# Services behind one door.
DOORS = {
    "webdataset": {"store/tars.py"},
    "diffusers": {"weights/vae.py"},
    "submitit": {"launch/slurm_job.py"},
    "cleanfid": {"scoring/resizing.py"},
    "requests": {"fetch/hub.py", "fetch/reasons.py", "fetch/transfer.py"},
    "urllib3": {"fetch/reasons.py", "fetch/transfer.py"},
}
LONGEST_FILE, LONGEST_FUNCTION = 300, 50
FORBIDDEN = {"draws", "supplies", "admission", "probe", "findings", "those", "or_one_sentence"}

FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules of the package that a module imports, also inside functions; not those that only name types."""
    found, skipped = set(), set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {id(child) for child in ast.walk(node)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name in MODULES} or {node.module}
            found |= {node.module} if any(name not in MODULES for name in inner) else set()
    return frozenset(found & MODULES.keys())


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer(package: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def test_every_package_and_stage_has_its_place_in_the_layers():
    found = {package_of(name) for name in MODULES} - {""}
    assert found == set().union(*LAYERS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == STAGES | {"cli", "__init__"}


def test_imports_lead_downward():
    for path in FILES:
        own = package_of(module_of(path))
        for other in imports(path):
            package = package_of(other)
            if package and package != own:
                assert layer(package) < layer(own) or own in STAGES, f"{path} imports {other}, which is not below it"


def test_packages_never_import_stages():
    for path in FILES:
        if package_of(module_of(path)) not in STAGES:
            assert not {name for name in imports(path) if package_of(name) in STAGES}, path


def test_networks_and_processes_never_import_each_other():
    for path in FILES:
        own, others = package_of(module_of(path)), {package_of(name) for name in imports(path)}
        assert not (own == "nets" and "process" in others) and not (own == "process" and "nets" in others)


def test_plans_and_papers_are_imported_by_nobody():
    for path in FILES:
        own = package_of(module_of(path))
        assert not {name for name in imports(path) if package_of(name) in {"planning", "paper"} - {own}}, path


def test_no_module_imports_itself_through_others():
    state: dict[str, str] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"a circle: {' → '.join((*way, module))}"
        if module in state:
            return
        state[module] = "open"
        for other in sorted(imports(MODULES[module])):
            if other != module:
                visit(other, (*way, module))
        state[module] = "done"

    for module in MODULES:
        visit(module, ())


def test_each_third_party_service_has_one_door():
    for service, doors in DOORS.items():
        users = {
            str(path.relative_to(PACKAGE))
            for path in FILES
            for node in ast.walk(parsed(path))
            if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == service for alias in node.names))
            or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == service)
        }
        assert users == doors, service


def test_variables_of_slurm_are_read_in_one_module():
    for path in FILES:
        if path.relative_to(PACKAGE).as_posix() not in ("slurm/environment.py", "launch/slurm_job.py"):
            assert not re.search(r"""["']SLURM_""", path.read_text(encoding="utf-8")), path


def test_files_and_functions_can_be_read_in_one_sitting():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE, path
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, f"{path}: {node.name}"


def test_modules_say_what_they_are():
    for path in FILES:
        assert ast.get_docstring(parsed(path)), path


def test_nothing_has_a_name_that_explains_nothing():
    for path in FILES:
        names = {path.stem}
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
        assert not names & FORBIDDEN, path


def test_no_test_imports_from_a_test():
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").split(".")[-1].startswith(("test_", "conftest")), path
