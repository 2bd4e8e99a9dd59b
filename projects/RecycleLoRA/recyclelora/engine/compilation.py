"""torch.compile of the blocks of a backbone."""

import contextlib
import logging
import os
import shlex
import shutil

import torch
from torch import nn

from recyclelora.backbone.vision_transformer import VisionTransformer

# Dynamo compiles a block at most this often, instead of 8 times, because all have one forward().
_MOST_BLOCKS = 256


def compile_blocks(model: nn.Module, log: logging.Logger) -> None:
    """Compile the blocks of DINOv2 or EVA-02 in place.

    Names of modules and parameters do not change. The first step of a training compiles them.

    Parameters
    ----------
    model : nn.Module
        The model.
    log : logging.Logger
        The log, which gets one line.

    Raises
    ------
    ValueError
        If there is no C++ compiler, or if the model has no such backbone.
    """
    command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(command[0]) is None:
        raise ValueError(
            f"train.compile=True needs a C++ compiler, but {command[0]!r} is not found: install "
            "g++, set CXX to a compiler, or train with train.compile=False"
        )
    backbones = [module for module in model.modules() if isinstance(module, VisionTransformer)]
    blocks = [block for backbone in backbones for block in backbone.blocks]
    if not blocks:
        raise ValueError(
            "train.compile must be False for a backbone that is neither DINOv2 nor EVA-02, got "
            "True: its blocks are unknown"
        )
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _MOST_BLOCKS)
    for block in blocks:
        block.compile()
    log.info(
        "The first step compiles %d blocks of the backbone (train.compile); the results equal "
        "those of an uncompiled training up to rounding", len(blocks),
    )  # fmt: skip


def eager(model: nn.Module) -> contextlib.AbstractContextManager:
    """Return a context in which the compiled blocks of a model run uncompiled.

    Evaluations use it, because each size of their images would be compiled.

    Parameters
    ----------
    model : nn.Module
        The model.

    Returns
    -------
    AbstractContextManager
        The context, which has no effect on a model without compiled blocks.
    """
    if any(module._compiled_call_impl is not None for module in model.modules()):
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()
