"""The scripts in examples/ run offline, and the printed numbers are as expected."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def packages(script: Path) -> list[str]:
    """Return the packages that a script's docstring tells the user to install."""
    docstring = ast.get_docstring(ast.parse(script.read_text()))
    needed = re.search(r"pip install ([\w ]+)``", docstring.replace("\n", " "))
    return needed[1].split() if needed else []


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_outputs_equal_and_loss_falls(script, tmp_path):
    for package in packages(script):
        pytest.importorskip(package, reason=f"this example needs pip install {package}")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)],
        **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr
    changes = re.findall(r"relative change of the outputs by \w+\(\): (\S+)", done.stdout)
    assert len(changes) == 2 and all(float(change) < 1e-5 for change in changes), done.stdout
    first, last = re.search(r"loss: ([\d.]+) .* ([\d.]+) after", done.stdout).groups()
    assert float(last) < 0.9 * float(first), done.stdout
    assert "the loaded model computes the same outputs" in done.stdout
    assert not list(tmp_path.iterdir())
