"""What holds for every command line: paths are expanded, and any terminal prints any text."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# It runs before the package exists.
TOOLS = [
    path for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "install_detectron2"
]
TRAINING = "lazyconfig_train_net"  # its main is recyclelora.engine.train


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_tool_expands_paths_and_prints_any_text(tool):
    text = tool.read_text(encoding="utf-8")
    assert not re.search(r"type=(pathlib\.)?Path\b", text), "use type=path_argument"
    assert tool.stem == TRAINING or "    tolerate_any_text()\n" in text


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_tool_in_ascii_without_home_or_user_prints_one_line(tool, tmp_path):
    """Its options are invalid, and name a file in characters that the terminal lacks."""
    outside = ("HOME", "USER", "LOGNAME", "LANG", "PYTHONIOENCODING")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    name = str(tmp_path / "夜_ü.py")
    options = {
        "analyze": ["--config-file", name, "--weights", name, "--out", name],
        "check_datasets": ["夜"],
        "demo": ["夜"],
        "draw_streets": [name, "--count", "1", "--domain", "夜"],
        "export_trained": ["--config-file", name, name, name],
        "predict": ["--config-file", name, "--checkpoint", name, "--out", name, name],
        "reproduce": ["--root", name, "--list"],
        "update_readme": ["--root", name],
        "card_streets": ["--count", "夜"],
        TRAINING: ["--config-file", name],
    }
    done = subprocess.run(
        [sys.executable, str(tool), *options[tool.stem]],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    last = done.stderr.decode("ascii").strip().splitlines()[-1]
    assert "error" in last or "draw_streets:" in last, last
    assert b"Traceback" not in done.stderr and list(tmp_path.iterdir()) == []
