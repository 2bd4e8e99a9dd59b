import itertools

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from PIL import Image

from recyclelora.data import TrainMapper, build_test_loader, build_train_loader, get_dataset
from recyclelora.data.loader import TrainDataset


def same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        if torch.is_tensor(first[key]):
            assert torch.equal(first[key], second[key]), key
        else:
            assert first[key] == second[key], key
    return True


def batches(name, count=4, **options):
    options = {"total_batch_size": 4, "seed": 3, "num_workers": 0, "iterations": count} | options
    return list(build_train_loader(name, TrainMapper(crop=32), **options))


def as_rank(monkeypatch, rank, world):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world)


def test_train_sample_has_the_documented_format(tiny_set):
    sample = batches(tiny_set("tiny_sample"), count=1)[0][0]
    assert sample["image"].shape == (3, 32, 32) and sample["image"].dtype == torch.uint8
    assert sample["sem_seg"].shape == (32, 32) and sample["sem_seg"].dtype == torch.uint8
    assert set(sample["sem_seg"].unique().tolist()) <= {0, 2, 10, 255}
    assert (sample["height"], sample["width"]) == (32, 32)
    assert isinstance(sample["seed"], int) and sample["file_name"].endswith(".png")
    torch.Generator().manual_seed(sample["seed"])


def test_train_mapper_pads_only_if_requested(tiny_set):
    record = get_dataset(tiny_set("tiny_small", size=(16, 200))).records()[0]
    sizes = set()
    for seed in range(20):
        padded = TrainMapper(crop=64)(record, np.random.default_rng(seed))
        free = TrainMapper(crop=64, pad_to_crop=False)(record, np.random.default_rng(seed))
        assert padded["image"].shape == (3, 64, 64)
        sizes.add(tuple(free["sem_seg"].shape))
    assert max(height for height, _ in sizes) < 64  # at most 4 x 64 long, and therefore 20 high


def test_train_loader_resumed_gives_equal_batches(tiny_set):
    name = tiny_set("tiny_resume", count=5)
    straight = batches(name, count=6)
    for start in (1, 4):
        resumed = batches(name, count=6 - start, start_iteration=start)
        for one, other in zip(straight[start:], resumed, strict=True):
            assert all(map(same, one, other))


def test_train_loader_with_workers_gives_equal_batches(tiny_set):
    name = tiny_set("tiny_workers", count=5)
    for one, other in zip(batches(name), batches(name, num_workers=2), strict=True):
        assert all(map(same, one, other))


def test_train_loader_ranks_divide_the_global_batch(tiny_set, monkeypatch):
    name = tiny_set("tiny_ranks", count=5)
    alone = batches(name)
    parts = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        parts.append(batches(name))
    for whole, *halves in zip(alone, *parts, strict=True):
        assert all(map(same, whole, [*halves[0], *halves[1]]))


def test_train_loader_indivisible_batch_raises(tiny_set, monkeypatch):
    name = tiny_set("tiny_uneven")
    as_rank(monkeypatch, 0, 3)
    with pytest.raises(ValueError, match="multiple of the number of processes, 3, got 4"):
        batches(name)


def test_epochs_are_different_permutations(tiny_set):
    names = [tiny_set("tiny_first", count=7), tiny_set("tiny_second", count=4)]
    records = [record for name in names for record in get_dataset(name).records()]
    dataset = TrainDataset(records, lambda record, rng: record, seed=0)
    epochs = [[dataset.index(epoch * 11 + place) for place in range(11)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    pooled = batches(names, count=11, total_batch_size=1)
    assert len({sample["file_name"] for (sample,) in pooled}) == 11


def test_sample_seeds_differ_between_samples_and_runs(tiny_set):
    name = tiny_set("tiny_seeds", count=2)
    seeds = [sample["seed"] for batch in batches(name) for sample in batch]
    others = [sample["seed"] for batch in batches(name, seed=4) for sample in batch]
    assert len({*seeds, *others}) == 32


def test_train_loader_without_iterations_is_endless(tiny_set):
    loader = build_train_loader(tiny_set("tiny_endless"), TrainMapper(32), 2, 0, num_workers=0)
    assert len(list(itertools.islice(loader, 9))) == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_error_in_a_worker_keeps_its_message(tiny_set, tmp_path, workers):
    name = tiny_set("tiny_fault", count=2)
    bad = tmp_path / name / "labels" / "000001.png"
    Image.fromarray(np.full((48, 64), 99, np.uint8)).save(bad)
    sentence = r"^\S*labels/000001\.png: 3072 pixels have the label value 99[^\n]*$"
    with pytest.raises(ValueError, match=sentence):
        batches(name, num_workers=workers)
    with pytest.raises(ValueError, match=sentence):
        list(build_test_loader(name, num_workers=workers))


def test_test_loader_returns_original_images(tiny_set, tmp_path):
    loader = build_test_loader(tiny_set("tiny_test", size=(40, 56)), num_workers=0)
    samples = list(loader)
    assert len(samples) == len(loader) == 4
    image = np.array(Image.open(samples[1]["file_name"]))
    assert np.array_equal(samples[1]["image"].permute(1, 2, 0).numpy(), image)
    assert samples[1]["sem_seg"].shape == (40, 56)
    assert (samples[1]["height"], samples[1]["width"]) == (40, 56)


def test_test_loader_ranks_read_every_image_once(tiny_set, monkeypatch):
    name = tiny_set("tiny_shards", count=5)
    names = []
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        names += [sample["image_id"] for sample in build_test_loader(name, num_workers=0)]
    assert sorted(names) == [f"{index:06d}" for index in range(5)]


def test_test_loader_subset_limits_the_images(tiny_set):
    loader = build_test_loader(tiny_set("tiny_few", count=9), subset=3, num_workers=0)
    assert len(list(loader)) == 3
