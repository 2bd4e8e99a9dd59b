"""``--check`` validates a run and leaves nothing behind."""

import shutil

import pytest
import torch

from recyclelora.common.devices import pick_device
from recyclelora.engine import check, memory

from ..support.training_runs import error_message, run_tool, write_blocks

pytestmark = pytest.mark.usefixtures("closed_logs")


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    for name in ("day", "night"):
        write_blocks(root / name, 3)
    return root


@pytest.fixture
def options(streets, tmp_path):
    return [f"train.output_dir={tmp_path / 'run'}", f"dataloader.streets={streets}"]


def test_check_prints_run_and_writes_nothing(options, tmp_path, capfd):
    run_tool("--check", *options, "dataloader.train.num_workers=1")
    out = capfd.readouterr().out
    for words in (
        "would train iterations 0 to 4 from random weights, 2 of 3 images each",
        "would evaluate on day (3), night (2) by protocol native",
        "on cpu, in float32",
        "memory: a step needs",
        "disk: checkpoints of about 0.00 GiB need",
    ):
        assert words in out
    assert not (tmp_path / "run").exists()


def test_check_of_resumed_run_names_checkpoint(options, tmp_path, capfd):
    run_tool(*options, "train.max_iter=1", "dataloader.test.day=null", "train.picture_period=0")
    files = sorted((tmp_path / "run").rglob("*"))
    (tmp_path / "run" / "error.txt").write_text("of an earlier run")
    run_tool("--check", "--resume", *options)
    assert f"iterations 1 to 4 from {tmp_path}/run/iter_0000001.pth" in capfd.readouterr().out
    run_tool("--check", "--eval-only", *options)
    out = capfd.readouterr().out
    assert f"would evaluate {tmp_path}/run/iter_0000001.pth (iteration 1)" in out
    assert "add --resume" in error_message("--check", *options)
    assert (tmp_path / "run" / "error.txt").read_text() == "of an earlier run"
    assert sorted((tmp_path / "run").rglob("*")) == sorted([*files, tmp_path / "run" / "error.txt"])
    run_tool("--eval-only", *options)  # succeeds, and so removes the error
    assert not (tmp_path / "run" / "error.txt").exists()


def test_check_with_too_little_disk_space_exits_with_one_sentence(options, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    message = error_message("--check", *options)
    assert f"but {tmp_path} has 0.00 GiB free: make room" in message and "\n" not in message


def test_estimated_size_of_a_checkpoint_is_that_of_the_file(options, tmp_path, monkeypatch):
    run_tool(*options, "train.max_iter=1", "dataloader.test.day=null", "train.picture_period=0")
    size = (tmp_path / "run" / "iter_0000001.pth").stat().st_size
    other = [f"train.output_dir={tmp_path / 'other'}", *options[1:], "train.max_iter=1"]
    usage = shutil.disk_usage(tmp_path)
    for share, fits in ((0.8, False), (1.2, True)):
        free = usage._replace(free=int(share * size))
        monkeypatch.setattr(check.shutil, "disk_usage", lambda _, free=free: free)
        if fits:
            run_tool("--check", *other)
        else:
            assert "the checkpoints need about" in error_message("--check", *other)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dataloader.train.total_batch_size=60000", "a step needs about"),
        ("dataloader.streets=/nowhere", "/nowhere"),
        ("model.backbone.module.weights=/nowhere.pth", "neither a file nor a known name"),
        ("train.init_checkpoint=/nowhere.pth", "no checkpoint at /nowhere.pth"),
        ("evaluation.checkpoint=a.pth", "add --eval-only"),
        ("train.output_dir=/dev/null/run", "/dev/null is not a folder"),
        ("model.backbone.r_main=64", "r_main"),
    ],
)
def test_check_of_invalid_run_exits_with_one_sentence(override, words, options, tmp_path):
    message = error_message("--check", *options, override)
    assert message.startswith("error: ") and words in message and "\n" not in message
    assert not (tmp_path / "run").exists()


def test_check_reads_first_image_of_targets(options, streets, tmp_path):
    write_blocks(tmp_path / "bad", 2)
    (tmp_path / "bad" / "images" / "000.png").write_bytes(
        (tmp_path / "bad" / "images" / "000.png").read_bytes()[:60]
    )
    night = "dataloader.test.night.dataset"
    given = [f"{night}.name=bad", f"{night}.images={tmp_path}/bad/images"]
    given += [f"{night}.labels={tmp_path}/bad/labels", "dataloader.test.night.subset=null"]
    assert "000.png" in error_message("--check", *options, *given)


def test_allocation_beyond_memory_raises_in_limited_block():
    cpu = pick_device("cpu")
    free = memory.available_memory(cpu)
    with memory.limited_memory(cpu), pytest.raises(RuntimeError, match="allocate memory"):
        torch.empty(free + 2**30, dtype=torch.uint8)
    torch.empty(2**20, dtype=torch.uint8)


def test_memory_of_container_limits_available(tmp_path, monkeypatch):
    for name, content in (
        ("memory.max", "1000000"),
        ("memory.current", "700000"),
        ("memory.stat", "anon 1\ninactive_file 200000\n"),
    ):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(memory, "_CGROUPS", ((str(tmp_path / "memory.max"), "memory.current"),))
    assert memory.available_memory(pick_device("cpu")) == 500_000
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_memory(pick_device("cpu")) > 10**6


def test_once_a_shape_predicts_once():
    calls = []
    predict = check._once_a_shape(lambda images: calls.append(1) or images)
    for size in (3, 3, 4):
        predict(torch.zeros(1, 3, size, size))
    assert len(calls) == 2
