"""The training tool: training, evaluation, resuming, error messages."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recyclelora.common.digests import state_digest

from ..support.training_runs import ROOT, TINY, TOOL, error_message, run_tool, write_blocks

pytestmark = pytest.mark.usefixtures("closed_logs")


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    for name in ("day", "night"):
        write_blocks(root / name, 4)
    return root


@pytest.fixture(scope="module")
def finished(streets, tmp_path_factory) -> Path:
    """Return the output folder of a complete run of four iterations in its own process."""
    output = tmp_path_factory.mktemp("run") / "whole"
    options = [f"train.output_dir={output}", f"dataloader.streets={streets}"]
    command = [sys.executable, str(TOOL), "--config-file", str(TINY), *options]
    # One thread, as in this process, because a resumed run is bit-identical only for equal threads.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for message in ("main adapter", "sub adapter", "iteration 4/4", "left", "mIoU"):
        assert message in done.stdout + done.stderr
    return output


def checkpoint(folder: Path, iteration: int) -> dict:
    return torch.load(folder / f"iter_{iteration:07d}.pth", weights_only=True)


def test_run_writes_all_outputs(finished):
    result = json.loads((finished / "domains.json").read_text())
    assert set(result) == {"checkpoint", "protocol", "domains", "mean_mIoU"}
    weights = checkpoint(finished, 4)["model"]
    assert result["checkpoint"] == {
        "file": "iter_0000004.pth",
        "iteration": 4,
        "weights_sha256": state_digest(weights),
    }
    assert not list(finished.glob("*.partial.*"))
    assert result["domains"]["night"]["images"] == 2
    assert 0 <= result["mean_mIoU"] <= 100
    for picture in ("domains.png", "pictures/iter_0000002.png", "pictures/night.png"):
        assert cv2.imread(str(finished / picture)) is not None, picture
    lines = [json.loads(line) for line in (finished / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1, 2, 3]
    assert checkpoint(finished, 4)["iteration"] == 4


def test_tensorboard_shows_domains_previews_and_adapters(finished):
    events = EventAccumulator(str(finished)).Reload()
    tags = events.Tags()
    assert "total_loss" in tags["scalars"] and tags["images"] == ["preview"]
    assert [image.step for image in events.Images("preview")] == [1, 3]
    result = json.loads((finished / "domains.json").read_text())
    (night,) = events.Scalars("mIoU/night")
    assert (night.step, night.value) == (3, pytest.approx(result["domains"]["night"]["mIoU"]))
    (mean,) = events.Scalars("mIoU/mean")
    assert mean.value == pytest.approx(result["mean_mIoU"])
    for kind, rank in (("main", 8), ("sub", 2)):
        ranks, moved = (
            events.Scalars(f"adapters/{name}_{kind}") for name in ("effective_rank", "moved")
        )
        assert [point.step for point in ranks] == [point.step for point in moved] == [1, 3]
        assert all(1 <= point.value <= rank for point in ranks)
        assert 0 < moved[0].value < moved[1].value
    assert len(events.Scalars("adapters/moved_both")) == 2


def test_run_changes_adapters_and_head_only(finished):
    before, after = (checkpoint(finished, i)["model"] for i in (2, 4))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    backbone = {name for name in moved if name.startswith("backbone.")}
    assert backbone and all("lora_" in name for name in backbone)
    assert any(name.startswith("sem_seg_head.") for name in moved)


def test_resume_matches_uninterrupted_run(finished, streets, tmp_path):
    arguments = [f"train.output_dir={tmp_path}", f"dataloader.streets={streets}"]
    # The files of a run that was killed after two iterations.
    torch.save(checkpoint(finished, 2), tmp_path / "iter_0000002.pth")
    run_tool("--resume", *arguments)
    resumed, whole = checkpoint(tmp_path, 4), checkpoint(finished, 4)
    for name, value in whole["model"].items():
        assert torch.equal(resumed["model"][name], value), name
    states = zip(
        resumed["optimizer"]["state"].values(), whole["optimizer"]["state"].values(), strict=True
    )
    assert all(torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in states)


def test_resume_with_other_settings_raises_or_warns(finished, streets, tmp_path, capfd):
    arguments = [f"train.output_dir={tmp_path}", f"dataloader.streets={streets}"]
    torch.save(checkpoint(finished, 2), tmp_path / "iter_0000002.pth")
    message = error_message("--resume", *arguments, "optimizer.lr=1e-3")
    assert f"{tmp_path}/iter_0000002.pth cannot be resumed with optimizer.lr=0.001" in message
    assert not list(tmp_path.glob("iter_0000004.pth")) and "Traceback" not in "".join(
        capfd.readouterr()
    )
    run_tool("--resume", *arguments, "train.max_iter=3")
    assert "train.max_iter=3 instead of 4: from here on" in "".join(capfd.readouterr())
    assert checkpoint(tmp_path, 3)["settings"]["train.max_iter"] == 3


def test_eval_only_matches_evaluation_of_run(finished, streets, tmp_path):
    run_tool(
        "--eval-only",
        f"train.output_dir={tmp_path}",
        f"evaluation.checkpoint={finished / 'iter_0000004.pth'}",
        f"dataloader.streets={streets}",
    )
    first, again = (json.loads((d / "domains.json").read_text()) for d in (finished, tmp_path))
    of_first, of_again = first.pop("checkpoint"), again.pop("checkpoint")
    assert first == again
    file = finished / "iter_0000004.pth"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert of_again == of_first | {"file": str(file), "sha256": digest}
    assert f"Evaluating {file} (iteration 4, sha256 {digest})" in (tmp_path / "log.txt").read_text()


def test_eval_only_ignores_init_checkpoint(finished, streets, tmp_path):
    shutil.copy(finished / "iter_0000002.pth", tmp_path)
    run_tool(
        "--eval-only",
        f"train.output_dir={tmp_path}",
        f"train.init_checkpoint={finished / 'iter_0000004.pth'}",
        f"dataloader.streets={streets}",
    )
    result = json.loads((tmp_path / "domains.json").read_text())
    assert result["checkpoint"]["file"] == str(tmp_path / "iter_0000002.pth")
    assert result["checkpoint"]["iteration"] == 2
    log = (tmp_path / "log.txt").read_text()
    assert f"train.init_checkpoint={finished / 'iter_0000004.pth'} is ignored" in log


def test_eval_only_refuses_damaged_newest_checkpoint(finished, streets, tmp_path):
    shutil.copy(finished / "iter_0000002.pth", tmp_path)
    (tmp_path / "iter_0000004.pth").write_bytes(b"cut off")
    given = (f"train.output_dir={tmp_path}", f"dataloader.streets={streets}")
    assert "iter_0000004.pth" in error_message("--eval-only", *given)
    named = error_message("--eval-only", *given, f"evaluation.checkpoint={tmp_path / 'no.pth'}")
    assert f"no checkpoint at {tmp_path / 'no.pth'}" in named


def test_float16_overflow_ends_evaluation(finished, streets, tmp_path):
    content = checkpoint(finished, 4)
    for name, value in content["model"].items():
        if ".mlp.fc2.bias" in name:  # finite in float32 but not in float16
            value += 7e4
        elif ".ls2.gamma" in name:
            value += 1.0
    torch.save(content, tmp_path / "large.pth")
    given = (f"train.output_dir={tmp_path}", f"dataloader.streets={streets}")
    given += (f"evaluation.checkpoint={tmp_path / 'large.pth'}",)
    message = error_message("--eval-only", *given, "train.amp.dtype=float16")
    assert f"{streets}/day/images/000.png: expected finite logits" in message
    assert "computed in float16" in message
    assert not (tmp_path / "domains.json").exists()
    run_tool("--eval-only", *given, "train.amp.dtype=bfloat16")


def test_run_with_accumulation_and_bfloat16_finishes(streets, tmp_path):
    run_tool(
        f"train.output_dir={tmp_path}",
        f"dataloader.streets={streets}",
        "train.accumulate=2",
        "train.amp.dtype=bfloat16",
        "train.max_iter=1",
    )
    assert checkpoint(tmp_path, 1)["iteration"] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train.max_iters=3"], "nearest known key is 'train.max_iter'"),
        (
            [f"dataloader.train.dataset.0.{k}=/nowhere/{k}" for k in ("name", "images")],
            "/nowhere/images",
        ),
        (["train.device=cuda:99"], "train.device=cuda:99"),
        (["train.amp.dtype=int8"], "train.amp.dtype"),
        (["train.init_checkpoint=/nowhere.pth"], "no checkpoint at /nowhere.pth"),
        (["model.backbone.r_main=64"], "r_main"),
        (["dataloader.train.total_batch_size=0"], "total_batch_size"),
        (["train.accumulate=3"], "train.accumulate=3"),
        (["--eval-only"], "give evaluation.checkpoint=FILE (train.init_checkpoint only starts"),
        (["--config-file", "nowhere.py"], "no config at nowhere.py"),
    ],
)
def test_invalid_arguments_exit_with_one_sentence(arguments, sentence, streets, tmp_path):
    common = [f"train.output_dir={tmp_path}", f"dataloader.streets={streets}"]
    options = [a for a in arguments if "=" not in a]
    message = error_message(*options, *common, *[a for a in arguments if "=" in a])
    assert message.startswith("error: ") and sentence in message
    assert len(message.splitlines()) == 1
    assert not list(tmp_path.glob("*.pth"))


def damage(folder: Path, fault: str) -> str:
    """Damage a copy of a good dataset; return the file that the message must name."""
    image, label = folder / "images" / "001.png", folder / "labels" / "001.png"
    pixels = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    if fault == "no label":
        label.unlink()
        return image.name
    if fault == "label of another size":
        cv2.imwrite(str(label), pixels[:-1])
    elif fault == "value outside the map":
        pixels[:] = 77
        cv2.imwrite(str(label), pixels)
    elif fault == "truncated image":
        image.write_bytes(image.read_bytes()[:200])
        return image.name
    elif fault == "truncated label":
        label.write_bytes(label.read_bytes()[:-30])
    elif fault == "empty folder":
        shutil.rmtree(folder / "images")
        (folder / "images").mkdir()
        return "images"
    return label.name


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "fault",
    [
        "no label",
        "label of another size",
        "value outside the map",
        "truncated image",
        "truncated label",
        "empty folder",
    ],
)
def test_damaged_data_exits_with_one_sentence(fault, workers, streets, tmp_path, capfd):
    shutil.copytree(streets / "day", tmp_path / "data")
    file = damage(tmp_path / "data", fault)
    dataset = "dataloader.train.dataset.0"
    message = error_message(
        f"train.output_dir={tmp_path / 'run'}",
        f"dataloader.streets={streets}",
        f"{dataset}.name={fault.replace(' ', '_')}_{workers}",
        *(f"{dataset}.{kind}={tmp_path / 'data' / kind}" for kind in ("images", "labels")),
        f"dataloader.train.num_workers={workers}",
    )
    assert message.startswith("error: ") and file in message
    assert len(message.splitlines()) == 1
    assert not list((tmp_path / "run").glob("*.pth"))
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert "Traceback" in (tmp_path / "run" / "error.txt").read_text()


def test_run_into_used_folder_raises(finished, streets):
    message = error_message(f"train.output_dir={finished}", f"dataloader.streets={streets}")
    assert "add --resume" in message


def test_init_checkpoint_of_other_model_raises(finished, streets, tmp_path):
    message = error_message(
        f"train.output_dir={tmp_path}",
        f"dataloader.streets={streets}",
        f"train.init_checkpoint={finished / 'iter_0000004.pth'}",
        "model.hidden_dim=64",
    )
    assert "belongs to another model" in message
