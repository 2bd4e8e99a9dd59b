"""A tiny dataset to spoil, and the training tool as a user meets it: options in, sentence out."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "support" / "tiny_config.py"


@pytest.fixture(scope="session")
def street_files(tmp_path_factory) -> Path:
    """``day`` and ``night``, four pairs each: blocks of classes, a colour per class."""
    root = tmp_path_factory.mktemp("streets")
    rng = np.random.default_rng(0)
    for name in ("day", "night"):
        for kind in ("images", "labels"):
            (root / name / kind).mkdir(parents=True)
        for i in range(4):
            label = np.kron(rng.integers(0, 19, (4, 6)), np.ones((16, 16))).astype(np.uint8)
            image = np.stack([label * 13, 255 - label * 9, label * 5 % 251], axis=-1)
            cv2.imwrite(str(root / name / "images" / f"{i:03d}.png"), image.astype(np.uint8))
            cv2.imwrite(str(root / name / "labels" / f"{i:03d}.png"), label)
    return root


@pytest.fixture
def streets(street_files, tmp_path) -> Path:
    """A copy of those to spoil."""
    return Path(shutil.copytree(street_files, tmp_path / "streets"))


@pytest.fixture
def run_tool(street_files, tmp_path) -> Iterator[Callable[..., str | None]]:
    """``run_tool("train.max_iter=0")``: the sentence that stops the run; None if it ends well.

    Runs the training tool in this process, one iteration of the tiny config into
    ``tmp_path / "run"``. Options begin with "--"; what comes later replaces what is given here.
    """
    from recyclelora.engine import train as training

    def run(*arguments: str) -> str | None:
        options = [a for a in arguments if a.startswith("--")]
        overrides = {
            "train.output_dir": tmp_path / "run",
            "train.max_iter": 1,
            "train.picture_period": 0,
            "dataloader.streets": street_files,
        }
        given = [a for a in arguments if not a.startswith("--")]
        preset = [f"{k}={v}" for k, v in overrides.items() if not any(k + "=" in a for a in given)]
        config = [] if any("--config-file" in o for o in options) else [f"--config-file={TINY}"]
        parser = training.argument_parser()
        try:
            training.run(parser.parse_args([*config, *options, *preset, *given]))
        except SystemExit as stopped:
            assert isinstance(stopped.code, str), stopped.code  # printed to stderr, exit code 1
            return stopped.code
        return None

    yield run
    for name in ("recyclelora", "detectron2", "fvcore"):  # they log to this test's terminal
        logging.getLogger(name).handlers.clear()


@pytest.fixture
def refusal(run_tool, tmp_path, capfd) -> Callable[..., str]:
    """``refusal(*arguments)``: the one sentence of the training tool; nothing is half-written."""

    def run(*arguments: str) -> str:
        said = run_tool(*arguments)
        assert said is not None, f"{arguments} were accepted"
        assert said.startswith("error: ") and "\n" not in said and len(said) < 1200
        assert not said.startswith("error: unexpected"), said
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        left = [p.name for p in tmp_path.glob("run/**/*")]
        assert not [name for name in left if name.endswith((".pth", ".tmp", "domains.json"))]
        return said

    return run
