import torch

from recyclelora.engine.memory import PeakMemory


def test_peak_memory_counts_freed_memory_but_nothing_older():
    older = torch.ones(50_000_000)  # 200 MB
    del older
    with PeakMemory(torch.device("cpu")) as memory:
        torch.ones(10_000_000)  # 40 MB, freed at once
    assert 38e6 <= memory.beyond < 80e6
    assert memory.peak > memory.beyond
