"""Files of trained parameters without the pretrained base, which users already have."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from recyclelora.adapters import DualLoRALinear
from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.digests import tensor_digest
from recyclelora.common.state_dicts import describe_mismatch
from recyclelora.common.tensor_file import check_finite

TRAINED = "recyclelora-trained-1"


def save_trained(
    path: str | Path, *, model: nn.Module, iteration: int, dtype: torch.dtype | None = None
) -> None:
    """Write the trainable parameters of a model, adapters and head, to a file atomically.

    The file contains tensors, plain types and the SHA-256 of the base's linear weights. With the
    SHA-256, :func:`load_trained` identifies the base.

    Parameters
    ----------
    path : str or Path
        The file; its folder is created.
    model : nn.Module
        A segmentor with a ``backbone``.
    iteration : int
        The number of finished iterations.
    dtype : torch.dtype, optional
        The dtype of the stored tensors, such as ``torch.float16`` for half the size. None keeps the
        dtypes of the model.

    Raises
    ------
    ValueError
        If a parameter is not finite, or would not be finite in ``dtype``. Nothing is written.
    """
    path = Path(path)
    trained = {
        name: parameter.detach().to("cpu", dtype or parameter.dtype)
        for name, parameter in _trainable(model).items()
    }
    kind = "its own precision" if dtype is None else str(dtype).removeprefix("torch.")
    check_finite(trained, f"the trained parameters in {kind}")
    content = {
        "format": TRAINED,
        "iteration": iteration,
        "base_sha256": tensor_digest(pretrained_weights(model.backbone)),
        "trained": trained,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


@torch.no_grad()
def load_trained(model: nn.Module, content: dict, *, source: str) -> None:
    """Load a file of :func:`save_trained` into a model that has its pretrained base.

    Parameters
    ----------
    model : nn.Module
        A model built with the config of the training, in its state before the training.
    content : dict
        The content of the file.
    source : str
        The name of the file, for error messages.

    Raises
    ------
    ValueError
        If names, shapes or the weights of the base differ. The model is then unchanged.
    """
    parameters, trained = _trainable(model), content["trained"]
    if mismatch := describe_mismatch(parameters, trained):
        raise ValueError(
            f"{source} belongs to another model: {mismatch}. Use the config and overrides (ranks, "
            "sizes, classes) that it was trained with"
        )
    if tensor_digest(pretrained_weights(model.backbone)) != content.get("base_sha256"):
        raise ValueError(
            f"{source} was trained on other backbone weights than those loaded here: set "
            "model.backbone.module.weights to the ones of its training"
        )
    for name, parameter in parameters.items():
        parameter.copy_(trained[name])


def pretrained_weights(backbone: nn.Module) -> Iterator[Tensor]:
    """Yield all frozen linear weights as pretrained; resampling does not change them.

    Parameters
    ----------
    backbone : nn.Module
        The backbone.

    Yields
    ------
    Tensor
        The weight of one layer.
    """
    for module in backbone.modules():
        if isinstance(module, DualLoRALinear):
            yield module.pretrained_weight()
        elif isinstance(module, nn.Linear) and not module.weight.requires_grad:
            yield module.weight


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
