"""Fixtures of all tests: reference outputs, real images, fixed seeds and small datasets."""

import importlib.util
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

COMMITTED_GOLDEN = Path(__file__).parent / "golden"

# One thread, as for the reference outputs. Runs are then also bit-identical on every machine.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` if torch finds no GPU."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU and torch finds none")
    for item in items:
        if item.get_closest_marker("gpu"):  # keywords also contain the names of folders
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seed all generators, so that tests do not depend on their order."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (detectron2's augmentations draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def datasets_of_one_test() -> Iterator[None]:
    """Remove the datasets that a test registered, so that another test can use the names."""
    if importlib.util.find_spec("detectron2") is None:  # not needed by the tests of the adapters
        yield
        return
    from detectron2.data import DatasetCatalog, MetadataCatalog

    importlib.import_module("recyclelora.data")  # registers the benchmarks
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.fixture
def closed_logs() -> Iterator[None]:
    """Remove the log handlers of a run: they hold the terminal, which pytest closes."""
    yield
    for name in ("recyclelora", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """``golden("miou.npz")``: the content of a reference file.

    The file is searched in the folder that RECYCLELORA_GOLDEN names, then in ``tests/golden``. If
    neither has it, the test is skipped.
    """

    def load(name: str) -> Any:
        named = os.environ.get("RECYCLELORA_GOLDEN")
        folders = [Path(named), COMMITTED_GOLDEN] if named else [COMMITTED_GOLDEN]
        for folder in folders:
            path = folder / name
            if path.is_file() and path.suffix == ".npz":
                with np.load(path) as arrays:
                    return dict(arrays)
            if path.is_file():
                return torch.load(path, map_location="cpu", weights_only=True)
        where = "in RECYCLELORA_GOLDEN" if named else "here, and RECYCLELORA_GOLDEN is not set"
        pytest.skip(f"the reference file {name} is not {where}")

    return load


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real street images that RECYCLELORA_DATA names; skips if it is not set."""
    value = os.environ.get("RECYCLELORA_DATA")
    if not value:
        pytest.skip("RECYCLELORA_DATA is not set: it names the folder of real street images")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"RECYCLELORA_DATA names {folder}, which is not a folder")
    return folder


@pytest.fixture
def tiny_set(tmp_path: Path) -> Callable[..., str]:
    """``tiny_set("name", count=4, size=(48, 64), classes=(0, 2, 10))``: a registered dataset.

    Writes ``count`` noisy images with labels of random classes to ``images`` and ``labels`` in
    ``tmp_path / name``. Further keywords are passed to ``register_folder``.
    """
    from recyclelora.data import register_folder

    def write(
        name: str,
        count: int = 4,
        size: tuple[int, int] = (48, 64),
        classes: tuple[int, ...] = (0, 2, 10, 255),
        **options: Any,
    ) -> str:
        rng = np.random.default_rng(count)
        root = tmp_path / name
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True)
        for index in range(count):
            blocks = rng.choice(classes, (6, 8)).astype(np.uint8)
            label = Image.fromarray(blocks).resize(size[::-1], Image.Resampling.NEAREST)
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / f"{index:06d}.png")
            label.save(root / "labels" / f"{index:06d}.png")
        return register_folder(name, images=root / "images", labels=root / "labels", **options)

    return write
