"""Segmentation of several images at once: the order, the errors, the threads and the results."""

import threading

import pytest
import torch

from recyclelora.adapters import active, adapt
from recyclelora.engine.predictor import predictor
from recyclelora.evaluation.parallel import concurrent_calls, in_order


def samples_of(count):
    return [{"number": number, "image": torch.full((2,), number)} for number in range(count)]


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_in_order_yields_samples_and_results_in_order(calls):
    found = list(in_order(lambda s: int(s["image"].sum()), samples_of(4), calls))
    assert [(sample["number"], value) for sample, value in found] == [
        (0, 0),
        (1, 2),
        (2, 4),
        (3, 6),
    ]


@pytest.mark.parametrize(("available", "each"), [(1, 1), (6, 2)])
def test_in_order_computes_samples_at_once_and_shares_threads(available, each):
    together = threading.Barrier(3)
    used = []

    def function(sample):
        together.wait(60)  # passes only if three threads are inside
        used.append(torch.get_num_threads())

    threads = torch.get_num_threads()
    torch.set_num_threads(available)
    try:
        assert len(list(in_order(function, samples_of(6), calls=3))) == 6
        assert used == [each] * 6
        assert torch.get_num_threads() == available
        later = threading.Thread(target=lambda: used.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert used[-1] == available
    finally:
        torch.set_num_threads(threads)


def test_in_order_computes_large_sample_alone():
    inside, alone = [], []

    def function(sample):
        inside.append(sample["number"])
        here = threading.current_thread() is threading.main_thread()
        alone.append(here and inside == [sample["number"]])
        inside.remove(sample["number"])
        return sample["number"]

    samples = samples_of(5)
    samples[2]["image"] = torch.zeros(3, 2048, 2049, dtype=torch.uint8)
    assert [value for _, value in in_order(function, samples, calls=2)] == [0, 1, 2, 3, 4]
    assert alone == [False, False, True, False, False]


def test_in_order_reads_few_samples_ahead():
    read = []

    def samples():
        for sample in samples_of(9):
            read.append(sample["number"])
            yield sample

    for sample, _ in in_order(lambda s: None, samples(), calls=2):
        assert read[-1] <= sample["number"] + 2


def test_in_order_copies_tensors_of_the_loader():
    shared = samples_of(3)
    found = [sample for sample, _ in in_order(lambda s: None, shared, calls=2)]
    for own, sample in zip(found, shared, strict=True):
        assert own["image"].equal(sample["image"])
        assert own["image"].data_ptr() != sample["image"].data_ptr()


def test_in_order_error_is_raised_at_its_sample():
    def function(sample):
        if sample["number"] == 2:
            raise ValueError("sample 2")
        return sample["number"]

    running = in_order(function, samples_of(5), calls=2)
    assert [next(running)[1], next(running)[1]] == [0, 1]
    with pytest.raises(ValueError, match="sample 2"):
        next(running)


def test_concurrent_calls_without_attribute_is_one():
    assert concurrent_calls(lambda images: images) == 1


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(64, 64)

    def semantic_logits(self, images):
        return self.layer(images)


def test_predictor_in_other_threads_uses_the_adapters_of_its_own():
    model = adapt(Linear())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    images = torch.randn(2, 3, 8, 64)
    with active(model, sub=False), predictor(model) as predict:
        here, there = predict(images), []
        thread = threading.Thread(target=lambda: there.append(predict(images)))
        thread.start()
        thread.join()
    with predictor(model) as both:
        assert not both(images).equal(here)
    assert there[0].equal(here)
    assert concurrent_calls(predict) == min(torch.get_num_threads(), 4)
