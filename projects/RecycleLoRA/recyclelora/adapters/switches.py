"""Which adapters act in the running thread, and a check that a backward pass agrees."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LOCAL = threading.local()

STATE_CHANGED = (
    "the state of an adapted layer (its adapters on or off, pair, merged) differs between a "
    "forward pass and its recomputation by checkpointing: call backward() in the state in which "
    "the forward pass ran, inside the same active(...) and before activate_pair() or merge()"
)


class Switches(NamedTuple):
    """Whether main and sub act with their trained factors; otherwise with their initial ones."""

    main: bool = True
    sub: bool = True


def switches_of(layer: Any, latest: Switches) -> Switches:
    """The switches of ``layer`` in the running thread.

    ``latest`` are the switches that any thread set last. They serve PyTorch's own threads, which
    run a backward pass on a GPU; :class:`SameState` finds out if they are the wrong ones.
    """
    switches = of_this_thread()
    if switches is None:
        in_backward = torch._C._current_graph_task_id() != -1
        # A thread that Python did not start is a _DummyThread to Python.
        if in_backward and isinstance(threading.current_thread(), threading._DummyThread):
            return latest
        return Switches()
    return switches.get(layer, Switches())


def of_this_thread() -> Mapping[Any, Switches] | None:
    """The switches that the running thread has set, by layer; None if it never set any."""
    return getattr(_LOCAL, "switches", None)


def set_in_this_thread(switches: Mapping[Any, Switches] | None) -> None:
    """Replace what :func:`of_this_thread` returns."""
    _LOCAL.switches = switches


def is_eager() -> bool:
    """Whether operators run at once: no compilation, tracing or function transform is active."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def has_saved_tensor_hooks() -> bool:
    """Whether hooks (checkpointing without reentry, offloading) replace saved tensors."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def keep_for_recomputation(layer: Any, code: int) -> None:
    """Let checkpointing recompute the running region with the switches of this thread.

    Checkpointing restores autocast and random numbers, but has no place for a state of ours.
    Where its internals differ from those known here, :class:`SameState` raises instead.
    """
    pack = torch._C._autograd._top_saved_tensors_default_hooks(True)[0]
    cells = [cell.cell_contents for cell in getattr(pack, "__closure__", None) or ()]
    for frame in cells:
        if type(frame).__name__ == "_CheckpointFrame" and hasattr(frame, "recompute_fn"):
            if not hasattr(frame, "recyclelora_codes"):
                frame.recyclelora_codes = {}
                frame.recompute_fn = _in_state(
                    frame.recompute_fn, of_this_thread() or {}, frame.recyclelora_codes
                )
            frame.recyclelora_codes.setdefault(layer, set()).add(code)


def check_recomputed(layer: Any, code: int) -> None:
    """Raise if checkpointing recomputes ``layer`` in a state that its forward pass did not have."""
    expected = getattr(_LOCAL, "expected", None) or {}
    if code not in expected.get(layer, {code}):
        raise RuntimeError(STATE_CHANGED)


def _in_state(
    function: Callable[..., Any], switches: Mapping[Any, Switches], codes: Mapping[Any, set[int]]
) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        before, expected = of_this_thread(), getattr(_LOCAL, "expected", None)
        _LOCAL.switches, _LOCAL.expected = switches, codes
        try:
            return function(*args)
        finally:
            _LOCAL.switches, _LOCAL.expected = before, expected

    return call


class SameState(torch.autograd.Function):
    """Return a view of a tensor; raise in the backward pass if a recomputation had another state.

    The state is kept twice: in the context, which only the original forward pass sets, and in the
    shape of a saved tensor without elements, which checkpointing recomputes.
    """

    @staticmethod
    def forward(ctx, tensor: Tensor, code: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.code = code
        ctx.save_for_backward(tensor.new_empty((0, code)))
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (marker,) = ctx.saved_tensors
        if marker.shape[1] != ctx.code:
            raise RuntimeError(STATE_CHANGED)
        return grad, None
