"""Small street datasets to damage, and the error message of the training tool."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def street_files(tmp_path_factory) -> Path:
    """``day`` and ``night``, four pairs each: blocks of classes, one colour per class."""
    from ..support.training_runs import write_blocks

    root = tmp_path_factory.mktemp("streets")
    for name in ("day", "night"):
        write_blocks(root / name, 4)
    return root


@pytest.fixture
def streets(street_files, tmp_path) -> Path:
    """Return a copy of the dataset that a test may damage."""
    return Path(shutil.copytree(street_files, tmp_path / "streets"))


@pytest.fixture
def run_tool(street_files, tmp_path) -> Iterator[Callable[..., str | None]]:
    """``run_tool("train.max_iter=0")``: the error message of the training tool, None without error.

    The tool runs in this process: one iteration of the tiny config into ``tmp_path / "run"``.
    Options begin with "--". The arguments replace these presets.
    """
    from ..support import training_runs

    def run(*arguments: str) -> str | None:
        options = [a for a in arguments if a.startswith("--")]
        given = [a for a in arguments if not a.startswith("--")]
        presets = {
            "train.output_dir": tmp_path / "run",
            "train.max_iter": 1,
            "train.picture_period": 0,
            "dataloader.streets": street_files,
        }
        names = [argument.partition("=")[0] for argument in given]
        overrides = [f"{key}={value}" for key, value in presets.items() if key not in names]
        try:
            training_runs.run_tool(*options, *overrides, *given)
        except SystemExit as stopped:
            assert isinstance(stopped.code, str), stopped.code  # printed to stderr, exit code 1
            return stopped.code
        return None

    yield run
    for name in ("recyclelora", "detectron2", "fvcore"):  # their handlers write to this terminal
        logging.getLogger(name).handlers.clear()


@pytest.fixture
def refusal(run_tool, tmp_path, capfd) -> Callable[..., str]:
    """``refusal(*arguments)``: the message of a run that must fail without partial output."""

    def run(*arguments: str) -> str:
        message = run_tool(*arguments)
        assert message is not None, f"{arguments} were accepted"
        assert message.startswith("error: ") and "\n" not in message and len(message) < 1200
        assert not message.startswith("error: unexpected"), message
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        left = [p.name for p in tmp_path.glob("run/**/*")]
        assert not [name for name in left if name.endswith((".pth", ".tmp", "domains.json"))]
        return message

    return run
