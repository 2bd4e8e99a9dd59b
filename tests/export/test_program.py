"""A segmentor as a package of AOTInductor, in Python and in the C++ program of examples/cpp."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import recyclelora
from recyclelora import Segmentor, adapt
from recyclelora.backbone import DinoVisionTransformer
from recyclelora.evaluation import native
from recyclelora.export.program import save_package
from recyclelora.mask2former import build_segmentor

from ..support.small_segmentor import SMALL
from ..support.training_runs import ROOT

EXAMPLE = ROOT / "examples" / "cpp" / "segment"
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # with the cmake of `make setup`


def segmentor():
    torch.manual_seed(0)
    backbone = DinoVisionTransformer(img_size=64, patch_size=16, depth=4, embed_dim=24, num_heads=2)
    model = build_segmentor(adapt(backbone, r_main=4, r_sub=2), **SMALL)
    with torch.no_grad():  # predictions of several classes
        head = model.sem_seg_head.predictor
        head.class_embed.weight *= 20
        for layer in head.mask_embed.layers:
            layer.weight *= 5
    return Segmentor.from_model(model, protocol=native(mode="whole"))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    package = str(Path(recyclelora.__file__).parents[1])
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": package}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The folder of the C++ program, built by the commands of its README."""
    folder = tmp_path_factory.mktemp("cpp") / "segment"
    shutil.copytree(EXAMPLE, folder)
    commands = (folder / "README.md").read_text().split("```bash\n")[1].split("```")[0]
    built = run(["bash", "-ec", commands], folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "build" / "segment"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return save_package(segmentor(), tmp_path_factory.mktemp("package") / "new" / "a.pt2")


def picture(file, height, width):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


@pytest.mark.slow
def test_package_computes_other_sizes_and_batches(package):
    assert [file.name for file in package.parent.iterdir()] == ["a.pt2"]
    found, loaded = segmentor(), torch._inductor.aoti_load_package(str(package))
    for shape in [(1, 64, 64), (2, 100, 170), (3, 33, 256)]:
        generator = torch.Generator().manual_seed(0)
        batch = 255 * torch.rand((shape[0], 3, *shape[1:]), generator=generator)
        scores, classes = loaded(batch)
        assert torch.allclose(scores, found.model.semantic_logits(batch), atol=1e-4)
        assert torch.equal(classes.long(), scores.argmax(1))


@pytest.mark.slow
def test_program_writes_the_classes_of_predict(program, package, tmp_path):
    found = segmentor()
    for height, width in ((64, 96), (90, 200)):
        pixels = picture(tmp_path / "a.ppm", height, width)
        done = run([str(program), str(package), "a.ppm", "a.pgm"], tmp_path)
        assert done.returncode == 0, done.stderr
        classes = np.asarray(Image.open(tmp_path / "a.pgm"))
        expected = found.predict(pixels).classes
        assert len(np.unique(expected)) > 1
        assert (classes == expected).mean() >= 0.999
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pgm", "a.ppm"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content[:-1], "a.ppm: expected 18432 bytes of pixels, got 18431"),
        (lambda content: b"P5" + content[2:], "a.ppm: expected a binary PPM (P6)"),
        (lambda content: b"P6 # size\n20 64 255\n", "to 8192 pixels, got 20x64: resize"),
        (lambda content: b"P6 99999999999999999999 1 255\n", "a.ppm: expected a binary PPM"),
        (lambda content: b"", "a.ppm: expected a binary PPM (P6)"),
        (None, "cannot open a.ppm"),
    ],
)
def test_program_with_invalid_picture_prints_one_sentence(change, sentence, program, tmp_path):
    picture(tmp_path / "a.ppm", 64, 96)
    if change is None:
        (tmp_path / "a.ppm").unlink()
    else:
        (tmp_path / "a.ppm").write_bytes(change((tmp_path / "a.ppm").read_bytes()))
    done = run([str(program), "none.pt2", "a.ppm", "a.pgm"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and sentence in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "a.pgm").exists()


@pytest.mark.slow
def test_program_with_damaged_package_prints_one_sentence(program, package, tmp_path):
    picture(tmp_path / "a.ppm", 64, 96)
    done = run([str(program), "none.pt2", "a.ppm", "a.pgm"], tmp_path)
    assert done.stderr == "error: cannot open none.pt2\n" and done.returncode == 1
    (tmp_path / "cut.pt2").write_bytes(package.read_bytes()[:2000])
    done = run([str(program), "cut.pt2", "a.ppm", "a.pgm"], tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "a.pgm").exists()


def test_package_with_another_suffix_raises(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file name with \.pt2"):
        save_package(segmentor(), tmp_path / "a.onnx")


def test_package_without_compiler_raises(tmp_path, monkeypatch):
    from recyclelora.export import program

    def missing():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(program, "get_cpp_compiler", missing)
    with pytest.raises(RuntimeError, match=r"but none was found: install g\+\+"):
        save_package(segmentor(), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())
