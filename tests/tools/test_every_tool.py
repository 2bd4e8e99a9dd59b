"""Properties of every command line: paths are expanded, and any terminal prints any text."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# install_detectron2.py runs before the package exists.
TOOLS = [
    path for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "install_detectron2"
]
TRAINING = "lazyconfig_train_net"  # it calls recyclelora.engine.train.main


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_tool_expands_paths_and_prints_any_text(tool):
    text = tool.read_text(encoding="utf-8")
    assert not re.search(r"type=(pathlib\.)?Path\b", text), "use type=path_argument"
    assert tool.stem == TRAINING or "    tolerate_any_text()\n" in text


# A name that messages contain and the terminal cannot print.
NAME = "夜_ü.py"
COMMANDS = {
    "predict": ["--config-file", NAME, "--checkpoint", NAME, "--out", "out", NAME],
    "check_datasets": ["夜"],
    TRAINING: ["--config-file", NAME],
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", COMMANDS)
def test_tool_in_ascii_without_home_or_user_prints_one_line(tool, tmp_path):
    outside = ("HOME", "USER", "LOGNAME", "LANG", "PYTHONIOENCODING")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *COMMANDS[tool]],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.decode("ascii").startswith("error: ") and done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []
