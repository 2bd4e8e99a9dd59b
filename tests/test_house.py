"""Tests of the architecture: which floor imports which, and the length of files."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "projects" / "RecycleLoRA" / "recyclelora"

STREETS = ROOT / "projects" / "DrawnStreets" / "drawn_streets"

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
    "analysis",
    "export",
    "reproduce",
]
# (floor, lower floor) pairs without an import, although the order would allow it.
INDEPENDENT = {
    *((floor, other) for floor in ("mask2former", "data") for other in ("adapters", "baselines")),
    ("data", "mask2former"),
    ("adapters", "backbone"),
}
# These floors work where detectron2 is not installed.
WITHOUT_DETECTRON2 = {"common", "ops", "adapters"}
# The modules of the package itself. Everything else belongs to a floor.
ROOT_MODULES = {"__init__.py", "collect_env.py"}
# A folder with more Python files is difficult to survey.
MOST_FILES = 30

TREES = [ROOT / name for name in ("projects", "tools", "benchmark", "configs", "examples", "tests")]
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
    """Return the absolute names of all modules that a file imports, also inside functions."""
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
    """Return the forbidden imports of a file of the package."""
    if path.parent == PACKAGE:
        return [] if path.name in ROOT_MODULES else [f"{name(path)} is not a root module"]
    folder = path.relative_to(PACKAGE).parts[0]
    if folder not in FLOORS:
        return [f"{name(path)} is on no floor: {FLOORS}"]
    found = []
    for module in sorted(imported_modules(path)):
        top, _, floor = module.partition(".")
        floor = floor.partition(".")[0]
        if top == "detectron2" and folder in WITHOUT_DETECTRON2:
            found.append(f"{name(path)} imports {module}")
        if top in ("tools", "benchmark", "configs", "tests"):
            found.append(f"{name(path)} imports {module}, which is not part of the package")
        if top == "recyclelora" and floor in FLOORS:
            if FLOORS.index(floor) > FLOORS.index(folder):
                found.append(f"{name(path)} imports {module}, which is above it")
            if (folder, floor) in INDEPENDENT:
                found.append(f"{name(path)} imports {module}, but {folder} must not use {floor}")
    return found


def test_floor_imports_only_floors_below():
    found = [text for path in sorted(PACKAGE.rglob("*.py")) for text in floor_violations(path)]
    assert not found, "\n".join(found)


def test_every_floor_is_a_folder_with_a_docstring():
    for floor in FLOORS:
        source = (PACKAGE / floor / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(source)), floor


def test_drawn_streets_imports_nothing_of_recyclelora():
    found = [
        f"{name(path)} imports {module}"
        for path in sorted(STREETS.rglob("*.py"))
        for module in imported_modules(path)
        if module.partition(".")[0] in ("recyclelora", "torch", "detectron2")
    ]
    assert not found, "\n".join(found)


def test_scripts_import_no_scripts():
    found = [
        f"{name(path)} imports {module}"
        for path in sorted((ROOT / "tools").glob("*.py"))
        for module in imported_modules(path)
        if module.partition(".")[0]
        in {"tools", "benchmark", *(p.stem for p in path.parent.glob("*"))}
    ]
    assert not found, "\n".join(found)


def test_folder_has_at_most_thirty_python_files():
    folders = {path.parent for path in PYTHON} - {ROOT}
    counts = {name(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_import_of_the_package_imports_neither_detectron2_nor_export():
    code = (
        "import sys, recyclelora; early = 'recyclelora.export' in sys.modules;"
        "recyclelora.export.save_peft; sys.exit(early or 'detectron2' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def function_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from `def` to the end, without the docstring."""
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


def test_files_and_functions_are_short():
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


def opens_text_in_the_locale(call: ast.Call) -> bool:
    """Return whether a call reads or writes text without an explicit encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name == "write_text" or (name == "read_text" and not call.args):
        return True
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    return name == "open" and any(mode in ("r", "w", "a", "x") for mode in modes)


def test_text_files_are_opened_in_a_named_encoding():
    found = [
        f"{name(path)}, line {node.lineno}"
        for path in PYTHON
        if path.relative_to(ROOT).parts[0] in ("benchmark", "projects", "tools")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_text_in_the_locale(node)
    ]
    assert not found, found


def test_no_module_is_called_utils():
    vague = {"utils", "util", "helpers", "misc"}
    assert [name(path) for path in PYTHON if vague & {path.stem, path.parent.name}] == []


def test_text_names_no_registry_host_and_no_machine_path():
    hosts = r"(pypi|pythonhosted|npmjs)\.(org|com)"
    paths = r"(?<![\w.$})/])/(work|root|home|opt)/\w"
    found = [
        f"{name(path)} names {match.group()}"
        for path in TEXT
        for match in re.finditer(f"{hosts}|{paths}", path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_dependencies_are_pinned_for_make_setup():
    def names(lines):
        found = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
        return {match.group().lower().replace("_", "-") for match in found if match}

    pinned = names((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert names(importlib.metadata.requires("recyclelora")) <= pinned
    tool = (ROOT / "tools" / "install_detectron2.py").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^REQUIREMENTS = (\(.*?^\))", tool, re.MULTILINE | re.DOTALL)
    assert names(ast.literal_eval(listed)) - {"setuptools"} <= pinned


def test_citation_and_changelog_have_the_version():
    version = importlib.metadata.version("recyclelora")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {version}" in citation
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()


def test_test_folders_mirror_the_package():
    others = {
        "benchmark",
        "configs",
        "drawn_streets",
        "examples",
        "golden",
        "invalid_input",
        "support",
        "tools",
    }
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders <= {*FLOORS, *others}
    assert not list((ROOT / "tests" / "support").glob("test_*.py"))
