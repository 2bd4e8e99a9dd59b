"""The training tool on a tiny config in this process, and images of coloured blocks."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from recyclelora.engine import train

ROOT = Path(__file__).parents[2]
TINY = Path("tests", "support", "tiny_config.py")
TOOL = ROOT / "tools" / "lazyconfig_train_net.py"


def run_tool(*arguments: str) -> None:
    """Run the tool in this process, which saves the time of imports."""
    arguments = ["--config-file", str(ROOT / TINY), *arguments]
    train.run(train.argument_parser().parse_args(arguments))


def error_message(*arguments: str) -> str:
    """Run the tool with invalid arguments and return its error message."""
    with pytest.raises(SystemExit) as stopped:
        run_tool(*arguments)
    assert isinstance(stopped.value.code, str)  # printed to stderr, exit code 1
    return stopped.value.code


def write_blocks(folder: Path, count: int) -> None:
    """Write images of coloured blocks, with one colour per class, and their labels."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        label = np.kron(rng.integers(0, 19, (4, 6)), np.ones((16, 16))).astype(np.uint8)
        image = np.stack([label * 13, 255 - label * 9, label * 5 % 251], axis=-1)
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image.astype(np.uint8))
        cv2.imwrite(str(folder / "labels" / f"{i:03d}.png"), label)
