"""Compare two state dicts and describe their differences in error messages."""

from collections.abc import Mapping, Sequence

from torch import Tensor


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Describe how the names and shapes of two state dicts differ.

    Parameters
    ----------
    expected : Mapping[str, Tensor]
        State dict of the model.
    found : Mapping[str, Tensor]
        State dict of the file.

    Returns
    -------
    str or None
        Missing names, unexpected names and different shapes, or None if nothing differs.

    Examples
    --------
    >>> import torch
    >>> describe_mismatch({"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(3)})
    'missing: b; wrong shape: a (3,) for (2,)'
    """
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    differences = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "wrong shape": shapes,
    }
    parts = [f"{what}: {join_names(names)}" for what, names in differences.items() if names]
    return "; ".join(parts) or None


def join_names(names: Sequence[str], limit: int = 6) -> str:
    """Join names with commas, and give the number of names beyond a limit.

    Parameters
    ----------
    names : Sequence[str]
        The names.
    limit : int
        The largest number of names to include.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> join_names(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
