"""The package as a whole: types, independence, class list, reproducibility and command line."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import drawn_streets
from drawn_streets import DOMAINS, classes, command_line, draw_street
from recyclelora.data.classes import CLASSES, COLORS, IGNORE_LABEL

SOURCES = sorted(Path(drawn_streets.__file__).parent.rglob("*.py"))
# SHA-256 of the label map of scene 0 of seed 0, 64 x 128, which is the same in every domain.
LABEL_HASH = "fb33d1a14f0ae8dd"
# Mean of red, green and blue of the same scene. OpenCV's floating-point results can differ between
# its versions and CPUs, so the images themselves are not pinned.
MEAN_COLOURS = {
    "day": (138.5, 141.4, 143.7),
    "dusk": (52.3, 57.3, 62.1),
    "night": (65.4, 56.9, 47.2),
    "fog": (141.9, 145.7, 148.6),
    "rain": (123.3, 119.2, 112.4),
    "snow": (131.1, 139.2, 150.9),
    "textures": (148.0, 128.5, 99.1),
}


def functions(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def missing_annotations(function):
    """Names of the parameters without an annotation, and "return" if the result has none."""
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    parameters += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    missing = [a.arg for a in parameters if not a.annotation and a.arg not in ("self", "cls")]
    return missing + ([] if function.returns else ["return"])


def test_functions_all_parameters_and_results_are_annotated():
    missing = {
        f"{path.name}: {function.name}": names
        for path in SOURCES
        for function in functions(path)
        if (names := missing_annotations(function))
    }
    assert missing == {}
    assert sum(len(functions(path)) for path in SOURCES) > 200


def test_missing_annotations_of_untyped_function_are_found():
    function = ast.parse("def f(self, a, b: int, *c, d=1): pass").body[0]
    assert missing_annotations(function) == ["a", "d", "c", "return"]


def test_import_loads_neither_recyclelora_nor_torch():
    code = (
        "import sys, drawn_streets.__main__, drawn_streets.card\n"
        "print(sorted({'recyclelora', 'torch', 'detectron2'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"


def test_classes_equal_those_of_recyclelora():
    assert classes.CLASSES == CLASSES
    assert classes.COLOURS == COLORS
    assert classes.IGNORE_LABEL == IGNORE_LABEL
    assert CLASSES[classes.ROAD] == "road" and CLASSES[classes.TRAFFIC_SIGN] == "traffic sign"
    assert CLASSES[classes.BICYCLE] == "bicycle"


@pytest.mark.parametrize("domain", DOMAINS)
def test_draw_street_seed_zero_is_pinned(domain):
    image, label = draw_street(0, 0, domain, 64, 128)
    assert hashlib.sha256(label.tobytes()).hexdigest()[:16] == LABEL_HASH
    np.testing.assert_allclose(image.mean((0, 1)), MEAN_COLOURS[domain], atol=1.0)


def test_main_writes_a_dataset(tmp_path):
    arguments = [str(tmp_path), "--count", "1", "--height", "32", "--width", "64", "--workers", "1"]
    assert command_line.main(arguments) == 0
    assert json.loads((tmp_path / "dataset.json").read_text())["complete"]


def test_main_invalid_domain_prints_one_line(tmp_path, capsys):
    assert command_line.main([str(tmp_path), "--count", "1", "--domain", "dawn"]) == 2
    error = capsys.readouterr().err
    assert "unknown street domain 'dawn'" in error and error.count("\n") == 1


def test_module_help_exits_successfully():
    command = [sys.executable, "-m", "drawn_streets", "--help"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "--count" in output and "python -m drawn_streets" in output
