"""Select the torch device for a device name."""

import re

import torch

from .validation import short_repr


def pick_device(name: str, *, option: str = "train.device") -> torch.device:
    """Return the torch device for a name.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``auto`` selects the current GPU if there is one,
        otherwise the CPU.
    option : str
        Name of the user's option in error messages.

    Returns
    -------
    torch.device
        The device. A CUDA device always has an index.

    Raises
    ------
    ValueError
        If the name is none of these, or if torch finds no such GPU.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", name):
        raise ValueError(f"{option} must be auto, cpu, cuda or cuda:N, got {short_repr(name)}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{option}={name} needs a GPU, but torch finds none: use {option}=cpu")
    if name == "cuda":
        name = f"cuda:{torch.cuda.current_device()}"
    device = torch.device(name)
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise ValueError(
            f"{option}={name} does not exist: the GPUs here are cuda:0 to "
            f"cuda:{torch.cuda.device_count() - 1}"
        )
    return device
