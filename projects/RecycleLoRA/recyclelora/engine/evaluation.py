"""Evaluation of a run's checkpoint on every target domain."""

from omegaconf import DictConfig

from recyclelora.common.devices import pick_device
from recyclelora.config.objects import instantiate
from recyclelora.data.loader import TestLoader
from recyclelora.evaluation import evaluate_domains
from recyclelora.evaluation.sliding_window import Predict

from .build import build_from_checkpoint
from .checkpoint import Checkpoints, read_checkpoint
from .loading import prepare_loaders
from .output import setup
from .predictor import predictor
from .trainer import amp_dtype


def evaluate(cfg: DictConfig) -> dict:
    """Evaluate a checkpoint on every target domain: a table, ``domains.json`` and pictures.

    The checkpoint is ``train.init_checkpoint`` if set, else the newest of the output folder.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    log = setup(cfg)
    device = pick_device(cfg.train.device)
    if cfg.train.init_checkpoint is not None:
        source = cfg.train.init_checkpoint
        content = read_checkpoint(source)
    else:
        found = Checkpoints(cfg.train.output_dir).latest(log=log.warning)
        if found is None:
            raise FileNotFoundError(
                f"no checkpoint to evaluate in {cfg.train.output_dir}: train first, or give "
                "train.init_checkpoint=FILE"
            )
        source, content = found
    loaders = target_loaders(cfg)
    model = build_from_checkpoint(cfg, content, source=str(source), device=device)
    which = f"iteration {content['iteration']}" + (", averaged weights" if "ema" in content else "")
    log.info("Evaluating %s (%s)", source, which)
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        return evaluate_targets(cfg, predict, loaders)


def target_loaders(cfg: DictConfig) -> dict[str, TestLoader]:
    """Return a loader for each target domain that is not null in ``dataloader.test``.

    Raises
    ------
    ValueError
        If the protocol does not define how to evaluate one of the domains.
    """
    tests = cfg.dataloader.test.items()
    loaders = {name: instantiate(loader) for name, loader in tests if loader is not None}
    protocol = instantiate(cfg.evaluation.protocol)
    for loader in loaders.values():
        protocol.input_size(1024, 512, loader.metadata.benchmark)
    prepare_loaders(cfg, loaders)
    return loaders


def evaluate_targets(cfg: DictConfig, predict: Predict, loaders: dict[str, TestLoader]) -> dict:
    """Evaluate ``predict`` as the config describes; see :func:`evaluate_domains`."""
    return evaluate_domains(
        predict,
        loaders,
        protocol=instantiate(cfg.evaluation.protocol),
        output_dir=cfg.train.output_dir,
        save_predictions=cfg.evaluation.get("save_predictions"),
    )
