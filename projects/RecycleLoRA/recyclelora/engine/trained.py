"""What a run has trained, without the base: a small file for whoever has the base."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from recyclelora.adapters import DualLoRALinear
from recyclelora.common.atomic_write import atomic_write

TRAINED = "recyclelora-trained-1"


def save_trained(
    path: str | Path, *, model: nn.Module, iteration: int, dtype: torch.dtype | None = None
) -> None:
    """Write the parameters of ``model`` that require grad: adapters and head.

    The file holds tensors and plain types, and the SHA-256 of the base's linear weights, by which
    :func:`load_trained` knows the base. It is there whole or not at all.

    Args:
        path: the file; its folder is made.
        model: a segmentor with a ``backbone``.
        iteration: the number of finished iterations.
        dtype: of the stored tensors, ``torch.float16`` for half the size; None keeps theirs.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": TRAINED,
        "iteration": iteration,
        "base_sha256": base_digest(model.backbone),
        "trained": {
            name: parameter.detach().to("cpu", dtype or parameter.dtype)
            for name, parameter in _trainable(model).items()
        },
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


@torch.no_grad()
def load_trained(model: nn.Module, content: dict, *, source: str) -> None:
    """Put the tensors of a file of :func:`save_trained` on a model that has its pretrained base.

    Args:
        model: as it was before its training: built by the same config.
        content: of the file.
        source: the file's name, for messages.

    Raises:
        ValueError: names or shapes differ, or the base has other weights; nothing is changed.
    """
    own, trained = _trainable(model), content["trained"]
    differ = sorted(own.keys() ^ trained.keys()) or [
        name for name in own if own[name].shape != trained[name].shape
    ]
    if differ:
        raise ValueError(
            f"{source} belongs to another model: {differ[0]} differs ({len(differ)} such). Use the "
            "config and overrides (ranks, sizes, classes) that it was trained with"
        )
    if base_digest(model.backbone) != content.get("base_sha256"):
        raise ValueError(
            f"{source} was trained on other backbone weights than those loaded here: set "
            "model.backbone.module.weights to the ones of its training"
        )
    for name, parameter in own.items():
        parameter.copy_(trained[name])


def base_digest(backbone: nn.Module) -> str:
    """SHA-256 of all frozen linear weights as pretrained, which resampling does not change."""
    digest = hashlib.sha256()
    for module in backbone.modules():
        if isinstance(module, DualLoRALinear):
            weight = module.pretrained_weight()
        elif isinstance(module, nn.Linear) and not module.weight.requires_grad:
            weight = module.weight.detach()
        else:
            continue
        digest.update(weight.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
