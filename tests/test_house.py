"""The architecture as a test: which floor imports which, and how long things may get."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "projects" / "RecycleLoRA" / "recyclelora"

# From the bottom up; a floor imports only floors below it.
FLOORS = [
    "common",
    "ops",
    "adapters",
    "backbone",
    "baselines",
    "mask2former",
    "data",
    "evaluation",
    "config",
    "engine",
    "reproduce",
]
# Floors that know nothing of some floor below them.
STRANGERS = {
    *((floor, other) for floor in ("mask2former", "data") for other in ("adapters", "baselines")),
    ("data", "mask2former"),
}
# What installs without detectron2 must work without it.
WITHOUT_DETECTRON2 = {"common", "ops", "adapters"}

TREES = [ROOT / name for name in ("projects", "tools", "benchmark", "configs", "tests")]
PYTHON = [*sorted(path for tree in TREES for path in tree.rglob("*.py")), ROOT / "setup.py"]
OTHER = ("*.md", "*.toml", "*.txt", "*.cff", "*.in", "Makefile", ".ci/*", ".*.yaml")
CPP = ("csrc/**/*.*", "examples/**/*.*", "projects/**/*.h", "projects/**/*.cmake")
TEXT = [
    *PYTHON,
    *(path for pattern in OTHER + CPP for path in ROOT.glob(pattern) if path.is_file()),
]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, at the top or inside functions."""
    package = path.relative_to(PACKAGE.parent).parts[:-1] if PACKAGE in path.parents else ()
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            modules.add(module)
            modules.update(f"{module}.{alias.name}" for alias in node.names)
    return modules


def floor_violations(path: Path) -> list[str]:
    """What a file of the package imports and should not."""
    folder = path.relative_to(PACKAGE).parts[0]
    if path.parent == PACKAGE:  # the package's own __init__ and command lines
        return []
    if folder not in FLOORS:
        return [f"{name(path)} is on no floor: {FLOORS}"]
    found = []
    for module in sorted(imported_modules(path)):
        top, _, floor = module.partition(".")
        floor = floor.partition(".")[0]
        if top == "detectron2" and folder in WITHOUT_DETECTRON2:
            found.append(f"{name(path)} imports {module}")
        if top == "recyclelora" and floor in FLOORS:
            if FLOORS.index(floor) > FLOORS.index(folder):
                found.append(f"{name(path)} imports {module}, above it")
            if (folder, floor) in STRANGERS:
                found.append(f"{name(path)} imports {module}, and {folder} knows no {floor}")
    return found


def test_a_floor_imports_only_floors_below():
    found = [text for path in sorted(PACKAGE.rglob("*.py")) for text in floor_violations(path)]
    assert not found, "\n".join(found)


def test_importing_the_package_does_not_import_detectron2():
    code = "import sys, recyclelora; sys.exit('detectron2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def function_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


def test_files_and_functions_are_read_in_one_sitting():
    too_long = []
    for path in PYTHON:
        text = path.read_text(encoding="utf-8")
        limit = 60 if ROOT / "configs" in path.parents else 400
        lines = len(text.splitlines())
        if lines > limit:
            too_long.append(f"{name(path)} has {lines} lines, at most {limit}")
        for node in ast.walk(ast.parse(text)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and (length := function_length(node)) > 60:
                too_long.append(f"{name(path)}: {node.name} has {length} lines, at most 60")
    assert not too_long, "\n".join(too_long)


def test_nothing_is_called_utils():
    vague = {"utils", "util", "helpers", "misc"}
    assert [name(path) for path in PYTHON if vague & {path.stem, path.parent.name}] == []


def test_no_registry_host_and_no_path_of_one_machine():
    hosts = r"(pypi|pythonhosted|npmjs)\.(org|com)"
    paths = r"(?<![\w.$})/])/(work|root|home|opt)/\w"
    found = [
        f"{name(path)} names {match.group()}"
        for path in TEXT
        for match in re.finditer(f"{hosts}|{paths}", path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_every_dependency_is_pinned_for_make_setup():
    def names(lines):
        found = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
        return {match.group().lower().replace("_", "-") for match in found if match}

    pinned = names((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert names(importlib.metadata.requires("recyclelora")) <= pinned
    tool = (ROOT / "tools" / "install_detectron2.py").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^REQUIREMENTS = (\(.*?^\))", tool, re.MULTILINE | re.DOTALL)
    assert names(ast.literal_eval(listed)) - {"setuptools"} <= pinned


def test_the_citation_has_the_version_of_the_package():
    version = importlib.metadata.version("recyclelora")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {version}" in citation


def test_tests_mirror_the_package():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= {*FLOORS, "tools", "benchmark", "configs", "invalid_input", "drawn_streets"}
