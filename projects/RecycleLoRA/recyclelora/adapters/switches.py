"""Which adapters act in the running thread, and a check that a backward pass agrees."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor


class _ThreadState(threading.local):
    """What a thread has set, by layer; ``switches`` is None until it sets any."""

    switches: Mapping[Any, "Switches"] | None = None
    samples: Mapping[Any, Any] = MappingProxyType({})
    expected: Mapping[Any, set[int]] = MappingProxyType({})


_LOCAL = _ThreadState()

STATE_CHANGED = (
    "the state of an adapted layer (its adapters on or off, pair, merged) differs between a "
    "forward pass and its recomputation by checkpointing: call backward() in the state in which "
    "the forward pass ran, inside the same active(...) and before activate_pair() or merge()"
)


class Switches(NamedTuple):
    """Whether main and sub act with their trained factors; otherwise with their initial ones."""

    main: bool = True
    sub: bool = True


BOTH = Switches()


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
        return BOTH
    return switches.get(layer, BOTH)


def of_this_thread() -> Mapping[Any, Switches] | None:
    """The switches that the running thread has set, by layer; None if it never set any."""
    return _LOCAL.switches


def set_in_this_thread(switches: Mapping[Any, Switches] | None) -> None:
    """Replace what :func:`of_this_thread` returns."""
    _LOCAL.switches = switches


def samples_of_this_thread() -> Mapping[Any, Any]:
    """The pairs of each sample that the running thread has set, by layer."""
    return _LOCAL.samples


def set_samples_in_this_thread(samples: Mapping[Any, Any]) -> None:
    """Replace what :func:`samples_of_this_thread` returns."""
    _LOCAL.samples = samples


def is_eager() -> bool:
    """Whether operators run at once: no compilation, tracing or function transform is active."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


def has_saved_tensor_hooks() -> bool:
    """Whether hooks (checkpointing without reentry, offloading) replace saved tensors."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def tie_to_state(
    layer: Any, serial: int, switches: Switches, tensors: list[Tensor | None]
) -> list[Tensor | None]:
    """The tensors of a computation of ``layer``, tied to the state that its backward must have.

    ``serial`` is the number of the pair, or of the several pairs, that the layer computes with. A
    recomputation in another state raises.
    """
    if not is_eager() or torch.autograd.forward_ad._current_level >= 0:
        return tensors
    code = 4 * serial + 2 * switches.main + switches.sub
    hooks = has_saved_tensor_hooks()
    if torch._C._current_graph_task_id() == -1:
        if code != layer._last_code:  # to set an attribute of a module takes microseconds
            layer._last_code = code
        if hooks:
            _keep_for_recomputation(layer, code)
    elif hooks:
        if code not in _LOCAL.expected.get(layer, {code}):
            raise RuntimeError(STATE_CHANGED)
    elif code != layer._last_code:  # checkpointing with use_reentrant=True
        raise RuntimeError(STATE_CHANGED)
    if hooks and torch.is_grad_enabled():
        for i, tensor in enumerate(tensors):
            if tensor is not None and tensor.requires_grad:
                return [*tensors[:i], SameState.apply(tensor, code), *tensors[i + 1 :]]
    return tensors


def _keep_for_recomputation(layer: Any, code: int) -> None:
    """Let checkpointing recompute the running region in the state of this thread.

    Checkpointing restores autocast and random numbers, but has no place for a state of ours.
    Where its internals differ from those known here, :class:`SameState` raises instead.
    """
    pack = torch._C._autograd._top_saved_tensors_default_hooks(True)[0]
    cells = [cell.cell_contents for cell in getattr(pack, "__closure__", None) or ()]
    for frame in cells:
        if type(frame).__name__ == "_CheckpointFrame" and hasattr(frame, "recompute_fn"):
            if not hasattr(frame, "recyclelora_codes"):
                frame.recyclelora_codes = {}
                frame.recompute_fn = _in_state(frame.recompute_fn, frame.recyclelora_codes)
            frame.recyclelora_codes.setdefault(layer, set()).add(code)


def _in_state(function: Callable[..., Any], codes: Mapping[Any, set[int]]) -> Callable[..., Any]:
    """``function`` in the present state of this thread, whichever thread calls it later."""
    switches, samples = _LOCAL.switches or {}, _LOCAL.samples

    def call(*args: Any) -> Any:
        before = _LOCAL.switches, _LOCAL.samples, _LOCAL.expected
        _LOCAL.switches, _LOCAL.samples, _LOCAL.expected = switches, samples, codes
        try:
            return function(*args)
        finally:
            _LOCAL.switches, _LOCAL.samples, _LOCAL.expected = before

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
