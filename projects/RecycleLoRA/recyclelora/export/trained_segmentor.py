"""Export of a run's segmentor, called by ``tools/export_segmentor.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import recyclelora
from recyclelora.common.devices import pick_device
from recyclelora.common.digests import file_digest
from recyclelora.common.paths import expand_path
from recyclelora.config.objects import instantiate
from recyclelora.data import CLASSES, COLORS
from recyclelora.engine.build import build_from_checkpoint, build_run, load_config
from recyclelora.engine.checkpoint import read_checkpoint
from recyclelora.engine.trainer import amp_dtype

from .inference import Inference
from .segmentor import Segmentor


def export_trained_segmentor(
    checkpoint: str,
    folder: Path,
    *,
    config_file: str,
    overrides: Sequence[str],
    form: str = "merged",
    dtype: str = "float32",
    base: str | None = None,
) -> Segmentor:
    """Write the segmentor of a checkpoint as a folder, and return it.

    Parameters
    ----------
    checkpoint : str
        A checkpoint of a run, or a file of ``tools/export_trained.py``.
    folder : Path
        The folder to write; see :meth:`Segmentor.save_pretrained`.
    config_file, overrides : str, sequence of str
        The config file and the overrides of the run.
    form : {"merged", "adapters"}
        The content of the folder. "adapters" writes adapters and head with a reference to the base
        weights.
    dtype : str
        The dtype of the weights in the file; see :meth:`Segmentor.save_pretrained`.
    base : str, optional
        The base weights; by default ``model.backbone.module.weights`` of the config.

    Returns
    -------
    Segmentor
        The segmentor.
    """
    cpu = torch.device("cpu")
    model, cfg, iteration = build_run(config_file, overrides, checkpoint, device=cpu)
    file = expand_path(checkpoint)
    segmentor = Segmentor.from_model(
        model,
        protocol=instantiate(cfg.evaluation.protocol),
        provenance={
            "recyclelora": recyclelora.__version__,
            "config": Path(config_file).name,
            "checkpoint": file.name,
            "checkpoint_sha256": file_digest(file),
            "iteration": iteration,
        },
    )
    segmentor.temperature = _temperature(cfg)
    if form == "merged":
        segmentor.save_pretrained(folder, dtype=dtype)
        return segmentor
    base = base or OmegaConf.select(cfg, "model.backbone.module.weights")
    if base is None:
        raise ValueError(
            "the config has no pretrained weights: give their name or file with --base"
        )
    segmentor.save_pretrained(folder, dtype=dtype, adapted=model, base=str(base))
    return segmentor


def load_run(
    checkpoint: str,
    *,
    config_file: str,
    overrides: Sequence[str],
    device: str | None = None,
    dtype: str | None = None,
) -> Inference:
    """Return the model of a run for inference; its adapters need not be mergeable.

    Parameters
    ----------
    checkpoint, config_file, overrides
        See :func:`export_trained_segmentor`.
    device, dtype : str, optional
        Replacements for ``train.device`` and ``train.amp.dtype``.

    Returns
    -------
    Inference
        The model with the protocol, precision and temperature of the config.
    """
    cfg = load_config(config_file, overrides)
    place = (
        pick_device(cfg.train.device) if device is None else pick_device(device, option="device")
    )
    precision = amp_dtype(cfg.train.amp.dtype if dtype is None else dtype, place)
    content = read_checkpoint(checkpoint)
    return Inference(
        model=build_from_checkpoint(cfg, content, source=checkpoint, device=place),
        protocol=instantiate(cfg.evaluation.protocol),
        class_names=tuple(CLASSES),
        colors=tuple(tuple(color) for color in COLORS),
        dtype=precision,
        temperature=_temperature(cfg),
    )


def _temperature(cfg: DictConfig) -> float:
    """Return the temperature of the config's confidences, or 1 if the config sets none."""
    named = cfg.evaluation.get("temperature")
    return 1.0 if named is None else float(named)
