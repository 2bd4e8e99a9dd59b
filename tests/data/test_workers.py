"""Worker processes: /dev/shm that is small or full, waiting for a batch, open files."""

import errno
import itertools
import multiprocessing
import os
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from recyclelora.data import (
    TrainMapper,
    build_test_loader,
    build_train_loader,
    shared_memory,
    workers,
)
from recyclelora.data.shared_memory import SharedBatch, SharedMemoryDemand, share_batch
from recyclelora.data.workers import BatchLoader, WaitInterrupted

MIB = 2**20


class Items(Dataset):
    def __getitem__(self, index):
        pixels = torch.arange(6, dtype=torch.uint8).view(2, 3) + index
        return {"image": pixels, "wide": torch.tensor([2**40 + index]), "name": str(index)}


class Slow(Dataset):
    def __getitem__(self, index):
        time.sleep(3600)


@pytest.fixture
def quick_looks(monkeypatch):
    monkeypatch.setattr(workers, "_LOOK", 0.05)


@pytest.fixture
def free(monkeypatch):
    """``free(64 * MIB)`` lets /dev/shm have this number of free bytes."""

    def set_free(size):
        monkeypatch.setattr(workers, "free_shared_memory", lambda: size)
        monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: size)

    return set_free


@pytest.fixture
def no_workers_remain():
    """Check at the end that no process is left that the test started."""
    before = set(multiprocessing.active_children())
    yield
    for worker in set(multiprocessing.active_children()) - before:
        worker.join(60)  # far below the time of a slow sample
        assert worker.exitcode is not None


def slow_loader(**options):
    return BatchLoader(Slow(), [[0], [1]], num_workers=2, name="the test", **options)


def test_batches_of_workers_equal_those_of_this_process():
    batches = [[0, 1, 2], [3], [4, 5]]
    alone = list(BatchLoader(Items(), batches, num_workers=0))
    shared = list(BatchLoader(Items(), batches, num_workers=2))
    for one, other in zip(alone, shared, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.keys() == b.keys() and a["name"] == b["name"]
            assert torch.equal(a["image"], b["image"]) and torch.equal(a["wide"], b["wide"])
            assert b["wide"].dtype == torch.int64


def test_batch_of_a_worker_needs_one_open_file():
    before = len(os.listdir("/proc/self/fd"))
    loader = BatchLoader(Items(), [[0] * 50] * 2, num_workers=1)
    passes = iter(loader)
    batch = next(passes)
    with_one = len(os.listdir("/proc/self/fd"))
    storages = {
        value.untyped_storage().data_ptr()
        for item in batch
        for value in (item["image"], item["wide"])
    }
    assert len(storages) == 1 and with_one - before < 20
    passes.close()


def test_demand_counts_prefetched_batches_and_the_one_in_use(free):
    demand = SharedMemoryDemand("training", 10 * MIB, num_workers=2, processes=2)
    assert demand.bytes(2) == 100 * MIB
    free(100 * MIB)
    demand.check()
    free(100 * MIB - 1)
    with pytest.raises(ValueError, match="2 worker processes in each of 2 processes need 100"):
        demand.check()


@pytest.mark.parametrize(("size", "most"), [(99, 1), (60, 1), (59, 0), (0, 0)])
def test_demand_too_large_names_the_number_that_fits(free, size, most):
    free(size * MIB)
    with pytest.raises(ValueError) as raised:
        SharedMemoryDemand("training", 20 * MIB, num_workers=2).check()
    message = str(raised.value)
    assert "/dev/shm has" in message and "--shm-size=" in message
    assert f"num_workers={most}, the largest number that fits" in message


def test_demand_beside_a_training_counts_both(free):
    free(100 * MIB)
    training = SharedMemoryDemand("dataloader.train", 10 * MIB, num_workers=2)
    test = SharedMemoryDemand("the test", 15 * MIB, num_workers=2)
    test.check()
    with pytest.raises(
        ValueError, match=r"in addition to 50\.0 MiB of dataloader\.train.*num_workers=1,"
    ):
        test.check(beside=training)


def test_demand_without_workers_or_limit_is_met(free):
    free(0)
    SharedMemoryDemand("training", MIB, num_workers=0).check()
    free(None)
    SharedMemoryDemand("training", MIB, num_workers=2).check()


@pytest.mark.parametrize(
    ("cores", "size", "processes", "batches", "expected"),
    [
        (6, None, 1, None, 6),
        (64, None, 1, None, 8),
        (6, None, 4, None, 1),
        (2, None, 4, None, 1),
        (16, None, 4, None, 4),
        (8, None, 1, 3, 3),
        (8, None, 1, 0, 8),
        (8, 340, 1, None, 8),  # 17 batches of 10 MiB are half of it
        (8, 339, 1, None, 7),
        (8, 64, 1, None, 1),
        (8, 10, 1, None, 1),
    ],
)
def test_default_workers_regard_cores_and_space(
    monkeypatch, free, cores, size, processes, batches, expected
):
    monkeypatch.setattr(shared_memory, "available_cores", lambda: cores)
    free(None if size is None else size * MIB)
    assert shared_memory.default_workers(10 * MIB, processes, batches) == expected


def test_loaders_have_a_worker_for_each_core(tiny_set, free, monkeypatch):
    monkeypatch.setattr(shared_memory, "available_cores", lambda: 3)
    free(None)
    name = tiny_set("tiny_cores", count=2)
    train = build_train_loader(name, TrainMapper(crop=32), 2, seed=0, iterations=4)
    assert train.demand.num_workers == 3
    alone = build_train_loader(name, TrainMapper(crop=32), 2, seed=0, iterations=4, num_workers=0)
    for one, other in zip(train, alone, strict=True):
        for item, same in zip(one, other, strict=True):
            assert torch.equal(item["image"], same["image"]) and item["seed"] == same["seed"]
    assert build_test_loader(name).batches.demand.num_workers == 2  # as many as images


def test_train_loader_compares_crop_and_batch(tiny_set, free):
    free(8 * MIB)
    name = tiny_set("tiny_shm")
    options = {"mapper": TrainMapper(crop=512), "total_batch_size": 4, "seed": 0}
    with pytest.raises(ValueError, match=r"batches of up to 4\.0 MiB, .*num_workers=0,"):
        build_train_loader(name, num_workers=1, **options)
    build_train_loader(name, num_workers=0, **options)
    options["mapper"] = lambda record, rng: record  # its samples have no known size
    build_train_loader(name, num_workers=2, **options)


def test_test_loader_compares_the_largest_image(tiny_set, free, tmp_path):
    name = tiny_set("tiny_large", size=(400, 600))
    free(4 * 400 * 600 * 5 - 1)
    with pytest.raises(ValueError, match=r"test loader of 'tiny_large': .*num_workers=1, the larg"):
        build_test_loader(name, num_workers=2)
    assert len(list(build_test_loader(name, num_workers=1))) == 4


def test_full_memory_loses_no_batch(monkeypatch, tmp_path, quick_looks):
    allocate, calls = SharedBatch.__init__, []

    def fail_at_first(self, items):
        calls.append(1)
        if len(calls) % 3:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Succ")
        allocate(self, items)

    monkeypatch.setattr(SharedBatch, "__init__", fail_at_first)
    loader = BatchLoader(Items(), [[index] for index in range(4)], num_workers=2)
    assert [batch[0]["name"] for batch in loader] == ["0", "1", "2", "3"]


def test_full_memory_without_batch_ends_the_pass(monkeypatch, quick_looks, free, no_workers_remain):
    monkeypatch.setattr(workers, "_FULL", 0.1)
    loader = slow_loader(batch_bytes=MIB)
    free(MIB - 1)
    with pytest.raises(
        OSError, match=r"the test: /dev/shm was full .*--shm-size.*num_workers below 2"
    ):
        list(loader)


def test_no_batch_within_the_timeout_ends_the_pass(quick_looks, no_workers_remain):
    loader = slow_loader()
    loader.timeout = 0.2
    with pytest.raises(TimeoutError, match=r"no batch within 0\.2 s.*dataloader\.timeout"):
        list(loader)


def test_time_in_which_the_process_was_suspended_does_not_count(monkeypatch, quick_looks):
    clock = itertools.count(step=1000.0)  # between two checks, after Ctrl-Z and fg
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    fetched, looks = Future(), []
    loader = slow_loader()
    loader.timeout = 2.0  # four checks of at most 0.5 s

    def answer_at_third_look():
        looks.append(1)
        if len(looks) == 3:
            fetched.set_result(["batch"])
        return False

    loader.should_stop = answer_at_third_look
    assert loader._await_batch(fetched) == ["batch"]


def test_stop_request_interrupts_waiting(quick_looks, no_workers_remain):
    loader, asked = slow_loader(), []
    loader.should_stop = lambda: asked.append(1) or len(asked) > 2
    with pytest.raises(WaitInterrupted):
        list(loader)
    assert len(asked) == 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("unable to open shared memory object </torch_1>: Too many open files (24)"),
    ],
)
def test_too_few_open_files_in_a_worker_have_a_sentence(monkeypatch, error):
    allocate = SharedBatch.__init__

    def fail(self, items):
        if not isinstance(items[0], Exception):
            raise error
        allocate(self, items)

    monkeypatch.setattr(SharedBatch, "__init__", fail)
    with pytest.raises(OSError, match=r"too many open files: .*ulimit -n"):
        list(BatchLoader(Items(), [[0]], num_workers=1))


def test_too_few_open_files_here_have_a_sentence(monkeypatch):
    def fail(self):
        raise RuntimeError("received 0 items of ancdata")

    monkeypatch.setattr(SharedBatch, "items", fail)
    with pytest.raises(OSError, match=r"too many open files: .*ulimit -n"):
        list(BatchLoader(Items(), [[0]], num_workers=1))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "need /dev/shm, which cannot be used"),
        (errno.EACCES, "need /dev/shm, which cannot be used"),
        (errno.EMFILE, "too many open files"),
        (errno.EAGAIN, "cannot start 2 worker processes"),
    ],
)
def test_workers_that_cannot_start_have_a_sentence(monkeypatch, number, words):
    def fail(self):
        raise OSError(number, os.strerror(number))

    loader = slow_loader()
    monkeypatch.setattr(type(loader._loader), "__iter__", fail)
    with pytest.raises(OSError, match=words):
        list(loader)


def test_share_batch_keeps_items_without_tensors():
    items = [1, ValueError("a"), {"x": "y"}]
    one, error, plain = share_batch(items).items()
    assert (one, str(error), plain) == (1, "a", {"x": "y"})


def test_free_shared_memory_is_that_of_the_file_system():
    assert (shared_memory.free_shared_memory() is None) == (not Path("/dev/shm").exists())
