import time

import pytest
import torch
from benchmark import adapter, measure

from recyclelora.reproduce.environment import environment

CPU = torch.device("cpu")


def test_alternate_interleaves_calls_and_drops_warmup():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = measure.alternate(calls, rounds=3, warmup=2, device=CPU, what="test")
    assert order == list("abc") * 5
    assert {name: len(runs) for name, runs in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_seconds_of_returns_time_and_value():
    seconds, value = measure.seconds_of(lambda: time.sleep(0.02) or "done", CPU)
    assert value == "done" and seconds >= 0.02


def test_spread_returns_median_and_quartiles():
    found = measure.spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert found == {"seconds": [5.0, 1.0, 2.0, 4.0, 3.0], "median": 3.0, "quartiles": [2.0, 4.0]}
    assert measure.spread([2.0])["quartiles"] == [2.0, 2.0]


def test_environment_describes_the_machine():
    record = environment(CPU)
    assert record["threads"] == torch.get_num_threads()
    assert record["versions"]["torch"] == torch.__version__
    assert record["rrqr"] in ("compiled", "SciPy reference")
    assert record["cpu"] in record["machine"]
    threads = "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"
    assert record["machine"].endswith(f", {threads}")
    assert record["commit"] != "unknown"


def test_wrong_result_exits_with_code_1_and_message():
    measure.require(True, "never said")
    with pytest.raises(SystemExit, match="error: two and two are not five") as stop:
        measure.exit_with_sentence(lambda: measure.require(False, "two and two are not five"))
    assert stop.value.code != 0


def test_missing_device_exits_with_message(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        adapter.main(["--device", "cuda"])
    assert "--device=cuda needs a GPU, but torch finds none" in capsys.readouterr().err


@pytest.mark.gpu
def test_seconds_on_gpu_include_the_kernels():
    matrix = torch.randn(4096, 4096, device="cuda")
    calls = {"one": lambda: matrix @ matrix, "twenty": lambda: [matrix @ matrix for _ in range(20)]}
    seconds = measure.alternate(calls, rounds=3, device=torch.device("cuda"), what="test")
    assert min(seconds["twenty"]) > 5 * min(seconds["one"])
