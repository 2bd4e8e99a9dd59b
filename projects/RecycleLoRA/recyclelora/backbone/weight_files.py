"""Read tensors from checkpoint files of several formats, without running code from the files."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from recyclelora.common.state_dicts import join_names
from recyclelora.common.tensor_file import read_tensor_file

from .onnx_file import read_onnx


def read_weight_file(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.pth``, safetensors or ONNX file.

    The format is recognised by the content of the file. PyTorch files are read with
    ``weights_only=True``. If a file stores its state dict under "state_dict", "model", "module" or
    "teacher", this state dict is returned.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict[str, torch.Tensor]
        The tensors by name.

    Raises
    ------
    FileNotFoundError
        If ``path`` is not a file.
    ValueError
        If the file has another format or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give the path of a single file")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`")
    if head.lstrip().startswith(b"<"):
        raise ValueError(f"{path} is a web page, not weights: download the file itself")
    # safetensors first, because the length at the start of its files may equal the signature of
    # another format.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        tensors = _read_safetensors(path)
    elif head.startswith((b"PK\x03\x04", b"\x80")):
        tensors = _read_torch(path)
    elif head.startswith(b"\x08") or path.suffix == ".onnx":
        tensors = read_onnx(path)
    else:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is neither a PyTorch, a safetensors nor an "
            "ONNX file: download it again"
        )
    if not tensors:
        raise ValueError(f"{path} contains no tensors: check that it is a file of weights")
    return tensors


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    content = read_tensor_file(path)
    for wrapping in ("state_dict", "model", "module", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__}, expected a state dict")
    other = [
        str(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if other:
        raise ValueError(
            f"expected a state dict in {path}, got entries that are not named tensors "
            f"({join_names(other)}): save only the state dict, alone or as 'state_dict', 'model' "
            "or 'teacher'"
        )
    return content


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        reason = str(error)[:200]
        raise ValueError(
            f"{path} is a damaged or truncated safetensors file ({reason}): get it again"
        ) from error
