"""A trained model is exported, evaluated, and applied to photographs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from PIL import Image
from tools import export_trained, predict

from recyclelora.data import COLORS, read_image
from recyclelora.engine import read_checkpoint, save_checkpoint, train
from recyclelora.engine.build import build_model
from recyclelora.engine.media_files import find_photographs

from ..support.training_runs import ROOT, TINY

CONFIG = str(ROOT / TINY)


@pytest.fixture
def run(tmp_path):
    """``(weights, checkpoint)``: a base in a file, and a model on it that has learned something."""
    cfg = LazyConfig.load(CONFIG)
    weights = tmp_path / "base.pth"
    module = cfg.model.backbone.module.module
    torch.save(instantiate(module).state_dict(), weights)
    cfg.model.backbone.module.weights = str(weights)
    model = build_model(cfg, device=torch.device("cpu"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    save_checkpoint(tmp_path / "iter_0000009.pth", model=model, iteration=9)
    return weights, tmp_path / "iter_0000009.pth"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (60, 90)), ("b.png", (70, 50))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def exported(run, tmp_path):
    weights, checkpoint = run
    override = f"model.backbone.module.weights={weights}"
    arguments = ["--config-file", CONFIG, str(checkpoint), str(tmp_path / "t.pth"), override]
    export_trained.main(arguments)
    return tmp_path / "t.pth"


def segment(checkpoint, weights, out, *photos, options=()):
    override = f"model.backbone.module.weights={weights}"
    given = ["--config-file", CONFIG, "--checkpoint", str(checkpoint), "--out", str(out)]
    predict.main([*given, *options, *map(str, photos), override])
    files = [file for file in out.rglob("*") if file.is_file() and file.name[0] != "."]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


def test_exported_file_predicts_like_checkpoint(run, exported, photos, tmp_path):
    weights, checkpoint = run
    assert read_checkpoint(exported)["iteration"] == 9
    assert exported.stat().st_size < checkpoint.stat().st_size
    whole = segment(checkpoint, weights, tmp_path / "whole", photos)
    small = segment(exported, weights, tmp_path / "small", photos / "a.jpg", photos / "b.png")
    kinds = ("ids.png", "color.png", "overlay.jpg")
    assert set(whole) == {f"{name}_{kind}" for name in "ab" for kind in kinds}
    assert whole == small
    ids = cv2.imread(str(tmp_path / "whole" / "a_ids.png"), cv2.IMREAD_UNCHANGED)
    colors = np.asarray(Image.open(tmp_path / "whole" / "a_color.png"))
    assert ids.shape == (60, 90) and np.array_equal(np.array(COLORS)[ids], colors)


def test_save_option_writes_class_maps_only(run, photos, tmp_path):
    weights, checkpoint = run
    (photos / "city").mkdir()
    (photos / "b.png").rename(photos / "city" / "b_rgb_anon.png")
    whole = segment(checkpoint, weights, tmp_path / "whole", photos)
    assert "city/b_rgb_anon_overlay.jpg" in whole
    options = ("--save", "train_ids", "--benchmark", "acdc")
    saved = segment(checkpoint, weights, tmp_path / "ids", photos, options=options)
    assert saved == {
        "a.png": whole["a_ids.png"],
        "city/b_rgb_anon.png": whole["city/b_rgb_anon_ids.png"],
    }
    with Image.open(tmp_path / "ids" / "city" / "b_rgb_anon.png") as ids:
        assert ids.size == (50, 70) and ids.mode == "L"


def test_eval_only_with_exported_file_matches_checkpoint(run, exported, tiny_set, tmp_path):
    scores = []
    for i, checkpoint in enumerate((run[1], exported)):
        tiny_set(f"{i}_day")
        for kind in ("images", "labels"):
            (tmp_path / f"{i}_streets" / "day").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{i}_day" / kind).rename(tmp_path / f"{i}_streets" / "day" / kind)
        overrides = [
            f"evaluation.checkpoint={checkpoint}",
            f"train.output_dir={tmp_path / str(i)}",
            f"dataloader.streets={tmp_path / f'{i}_streets'}",
            f"dataloader.test.day.dataset.name={i}_streets",
            "dataloader.test.night=null",
            f"model.backbone.module.weights={run[0]}",
        ]
        arguments = ["--config-file", CONFIG, "--eval-only", *overrides]
        train.run(train.argument_parser().parse_args(arguments))
        scores.append(json.loads((tmp_path / str(i) / "domains.json").read_text())["domains"])
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("photo", "sentence"),
    [
        ("nowhere.jpg", "no photograph or folder at nowhere.jpg"),
        (CONFIG, "expected a picture"),
        (str(Path(CONFIG).parent), "expected a picture"),
    ],
)
def test_invalid_photograph_exits_with_one_sentence(photo, sentence, tmp_path):
    given = ["--config-file", CONFIG, "--checkpoint", "none.pth", "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match=sentence) as stopped:
        predict.main([*given, photo])
    assert len(str(stopped.value).splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_find_photographs_finds_all_formats(tmp_path):
    kinds = ("png", "jpeg", "tiff", "bmp", "gif", "webp", "ppm")
    for kind in kinds:
        Image.new("RGB", (8, 8)).save(tmp_path / f"{kind}.{kind}")
    (tmp_path / "notes.txt").write_text("not a picture")
    found = find_photographs([tmp_path])
    assert sorted(map(str, found)) == sorted(kinds)
    assert all(read_image(file).shape == (8, 8, 3) for file in found.values())


def test_find_photographs_equal_names_raise(photos):
    (photos / "a.png").write_bytes((photos / "b.png").read_bytes())
    with pytest.raises(ValueError, match="two photographs have the same name, a"):
        find_photographs([photos])


def test_broken_photograph_does_not_stop_the_others(run, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes((photos / "b.png").read_bytes()[:100])
    (photos / "text.jpg").write_text("no picture")
    with pytest.raises(SystemExit) as stopped:
        segment(run[1], run[0], tmp_path / "out", photos)
    header, *listed = stopped.value.code.splitlines()  # a text is exit code 1
    assert header == "error: 2 of 4 files could not be segmented:"
    for line, name in zip(listed, ("broken.png", "text.jpg"), strict=True):
        assert line.startswith(f"  {photos / name}: expected a complete picture")
    assert {path.name[0] for path in (tmp_path / "out").glob("[!.]*")} == {"a", "b"}
    out, err = capsys.readouterr()
    assert f"wrote 2 x 3 pictures to {tmp_path / 'out'}" in out and "segmenting" in err


def test_overflow_is_listed_with_image_and_dtype(run, photos, tmp_path):
    content = read_checkpoint(run[1])
    for name, value in content["model"].items():
        if ".mlp.fc2.bias" in name:
            value += 7e4
        elif ".ls2.gamma" in name:
            value += 1.0
    torch.save(content, tmp_path / "large.pth")
    with pytest.raises(SystemExit) as stopped:
        half = "train.amp.dtype=float16"
        segment(tmp_path / "large.pth", run[0], tmp_path / "out", photos, half)
    assert f"{photos / 'a.jpg'}: expected finite logits" in stopped.value.code
    assert stopped.value.code.count("computed in float16") == 2
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_half_export_that_overflows_raises(run, tmp_path):
    content = read_checkpoint(run[1])
    name = next(name for name in content["model"] if name.startswith("sem_seg_head."))
    content["model"][name].view(-1)[0] = 1e6  # finite only in float32
    torch.save(content, tmp_path / "large.pth")
    override = f"model.backbone.module.weights={run[0]}"
    files = [str(tmp_path / "large.pth"), str(tmp_path / "t.pth")]
    with pytest.raises(SystemExit, match=f"float16: {name} holds NaN or infinity"):
        export_trained.main(["--config-file", CONFIG, "--half", *files, override])
    assert not (tmp_path / "t.pth").exists()


def test_output_folder_and_hidden_files_are_not_read(photos, tmp_path):
    (photos / "._a.jpg").write_bytes(b"of a Mac")
    for folder in (".ipynb_checkpoints", "@eaDir", "out"):
        (photos / folder).mkdir()
        (photos / folder / "c.png").write_bytes((photos / "b.png").read_bytes())
    (tmp_path / "link").symlink_to(photos / "out")
    for output in (photos / "out", photos / ".." / "photos" / "out", tmp_path / "link"):
        assert sorted(map(str, find_photographs([photos], output=output))) == ["a", "b"]
    for given in (photos, photos / "a.jpg", photos / "out"):
        with pytest.raises(ValueError, match="which is not read"):
            find_photographs([given], output=photos)
