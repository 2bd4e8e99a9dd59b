"""Long decompositions report their progress, and end on a signal."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from recyclelora import DualLoRALinear, adapt, rrqr
from recyclelora.ops import StopFlag, interruption, is_interruptible, rrqr_progress

interruptible = pytest.mark.skipif(
    not is_interruptible(), reason="recyclelora._interruption is not built for this Python"
)
LONG = 3000  # all of Q of a matrix of this size takes at least 5 s


class Alarm(Exception):
    """Raised by the signal handler."""


@contextlib.contextmanager
def alarm(seconds):
    """Raise Alarm in the main thread after some seconds."""

    def handler(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=[1, 2])
def threads(request):
    """Run the operator with one and with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@interruptible
@pytest.mark.parametrize("shape", [(LONG, LONG), (2, LONG, LONG), (LONG // 2, 2 * LONG)])
def test_signal_ends_a_long_decomposition(shape, threads):
    weight = torch.randn(shape)
    count = min(shape[-2:])
    with alarm(0.3), pytest.raises(Alarm):
        rrqr(weight, count, 0)
    small = torch.randn(9, 7)
    assert torch.equal(rrqr(small, 2, 2).perm, rrqr(small, 7, 0).perm)  # works as before


@interruptible
def test_signal_whose_handler_returns_does_not_end_it(threads):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        out = rrqr(torch.randn(700, 700), 700, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    eye = torch.eye(700)
    torch.testing.assert_close(out.q_major.T @ out.q_major, eye, atol=1e-5, rtol=0)


@interruptible
def test_signal_ends_a_call_of_the_operator(threads):
    weight = torch.randn(LONG, LONG)
    with alarm(0.3), pytest.raises(Alarm):
        try:
            torch.ops.recyclelora.rrqr(weight, LONG, 0)
        finally:
            time.sleep(0)  # Python raises the error of the handler in its own code


@interruptible
@pytest.mark.slow  # imports the compiler
def test_signal_ends_compiled_code():
    compiled = torch.compile(lambda w: rrqr(w, w.shape[0], 0), dynamic=True, backend="aot_eager")
    compiled(torch.randn(20, 20))
    weight = torch.randn(LONG, LONG)
    with alarm(0.6), pytest.raises(Alarm):
        try:
            compiled(weight)
        finally:
            time.sleep(0)


@interruptible
def test_adapt_that_is_interrupted_leaves_the_model_as_it_was(threads):
    model = nn.Sequential(*(nn.Linear(2500, 2500) for _ in range(4)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    running = threading.active_count()
    with alarm(0.3), pytest.raises(Alarm):
        adapt(model, r_main=600)
    assert not any(isinstance(module, DualLoRALinear) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert threading.active_count() == running
    assert torch.get_num_threads() == threads


@interruptible
def test_flag_ends_only_the_threads_that_use_it():
    stop, errors, results = StopFlag(), [], []
    torch.set_num_threads(1)

    def ends():
        stop.use()
        try:
            rrqr(torch.randn(LONG, LONG), LONG, 0)
        except RuntimeError as error:
            errors.append(str(error))

    def goes_on():
        results.append(rrqr(torch.randn(400, 300), 300, 0))

    threads = [threading.Thread(target=target) for target in (ends, goes_on)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    (error,) = errors
    assert "rrqr was interrupted" in error
    assert len(results) == 1


@interruptible
@pytest.mark.parametrize("shape", [(1, 6, 8), (5, 40, 30), (2, 3, 200, 150)])
def test_progress_is_reported_once_for_each_matrix(shape, threads):
    calls = []
    total = shape[0] if len(shape) == 3 else shape[0] * shape[1]
    weight = torch.randn(shape)
    with rrqr_progress(lambda *numbers: calls.append(numbers)):
        rrqr(weight, 2, 2)
    rrqr(weight, 2, 2)  # outside the block
    assert calls == [(i, total) for i in range(1, total + 1)]


@interruptible
def test_progress_blocks_nest_and_may_decompose():
    calls = []

    def outer(finished, total):
        calls.append(("outer", finished, total))
        with rrqr_progress(lambda *numbers: calls.append(("inner", *numbers))):
            rrqr(torch.randn(4, 3), 1, 1)

    with rrqr_progress(outer):
        rrqr(torch.randn(2, 4, 3), 1, 1)
    assert [name for name, *_ in calls] == ["outer", "inner"] * 2


@interruptible
def test_error_of_the_progress_function_is_raised(threads):
    def fail(finished, total):
        raise LookupError(f"at {finished} of {total}")

    with rrqr_progress(fail), pytest.raises(LookupError, match="at 1 of 3"):
        rrqr(torch.randn(3, 8, 6), 1, 1)
    assert rrqr(torch.randn(3, 8, 6), 1, 1).perm.shape == (3, 6)


@interruptible
def test_error_in_a_matrix_does_not_hang(threads):
    weight = torch.randn(4, 300, 200)
    weight[1, 0, 0] = torch.nan
    calls = []
    with rrqr_progress(lambda *n: calls.append(n)), pytest.raises(ValueError, match="NaN or Inf"):
        rrqr(weight, 2, 2)


@interruptible
def test_signal_ends_a_decomposition_in_a_forked_process():
    torch.set_num_threads(1)
    weight = torch.randn(LONG, LONG)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with alarm(0.3):
                rrqr(weight, LONG, 0)
        except Alarm:
            code = 7
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_adapt_reports_each_layer_of_a_stack(monkeypatch):
    counts = []

    class Bar:
        n = 0

        def __init__(self, **options):
            self.total = options["total"]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            assert self.n == self.total

        def update(self, n=1):
            self.n += n
            counts.append(n)

    monkeypatch.setattr("recyclelora.adapters.decomposition.tqdm", Bar)
    adapt(nn.Sequential(*(nn.Linear(40, 40) for _ in range(3))), 4, 2, init="svd")
    adapt(nn.Sequential(*(nn.Linear(40, 40) for _ in range(3))), 4, 2)
    assert sum(counts) == 6


def test_decompositions_work_without_the_module(monkeypatch):
    monkeypatch.setattr(interruption, "_interruption", None)
    assert not is_interruptible()
    stop = StopFlag()
    stop.set()
    stop.use()
    calls = []
    with rrqr_progress(lambda *numbers: calls.append(numbers)):
        assert rrqr(torch.randn(2, 8, 6), 1, 1).perm.shape == (2, 6)
    with pytest.raises(ValueError, match="NaN or Inf"):
        rrqr(torch.full((2, 2), torch.nan), 1, 1)
    model = adapt(nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40)), 4, 2)
    assert isinstance(model[1], DualLoRALinear)


# A shell starts background jobs with SIGINT ignored, and children inherit that.
CTRL_C = """
import signal
import torch
from recyclelora import rrqr
signal.signal(signal.SIGINT, signal.default_int_handler)
weight = torch.randn(4096, 4096)
print("started", flush=True)
try:
    rrqr(weight, 4096, 0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise
print("finished", flush=True)
"""


@interruptible
@pytest.mark.slow
def test_ctrl_c_ends_a_layer_of_a_language_model():
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert out == "interrupted\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
