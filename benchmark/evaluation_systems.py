"""What ``benchmark.evaluation`` calls in the process of each candidate.

The module also runs with the code of other commits, so it imports only names that they have.
"""

import functools
import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmark.worker import Timed, timed
from recyclelora.backbone import DinoVisionTransformer
from recyclelora.data import real_sets, register_folder
from recyclelora.data.loader import build_test_loader
from recyclelora.engine.predictor import predictor
from recyclelora.evaluation import evaluate_domains, native
from recyclelora.evaluation.protocols import paper
from recyclelora.mask2former import build_segmentor

NOW, HUGGING_FACE = "this code", "Hugging Face"
NUM_CLASSES = 19
LARGE = (2048, 1024)  # width and height
CPU = torch.device("cpu")


class Task(NamedTuple):
    """The model, the images and the precision of an evaluation.

    Parameters
    ----------
    sizes : str
        The arguments of ``DinoVisionTransformer`` and ``build_segmentor``, as JSON.
    weights : str
        The file with the state dict of the merged model.
    folder : str or None
        A folder with ``images`` and ``labels``, for the protocol ``paper``. None selects the sets
        of RECYCLELORA_DATA and the protocol of ``streets_to_real``.
    images : int
        The number of images of each set.
    precision : str
        The name of a dtype of PyTorch.
    """

    sizes: str
    weights: str
    folder: str | None
    images: int
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)


@functools.lru_cache(maxsize=1)
def _model(system: str, sizes: str, weights: str) -> nn.Module:
    """Return the merged model of a candidate in evaluation mode."""
    arguments = json.loads(sizes)
    backbone = DinoVisionTransformer(**arguments["backbone"])
    if system == HUGGING_FACE:
        from benchmark.hugging_face import HuggingFaceSegmentor  # imports slow packages

        return HuggingFaceSegmentor(
            backbone, head=arguments["head"], num_classes=NUM_CLASSES, r_main=32, r_sub=4
        ).merged()
    model = build_segmentor(backbone, NUM_CLASSES, **arguments["head"])
    model.criterion = nn.Identity()  # the file has no state of the loss
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


@functools.cache
def _registered(folder: str) -> str:
    root = Path(folder)
    return register_folder(root.name, images=root / "images", labels=root / "labels")


def evaluate(system: str, task: Task, predictions: str | None) -> Timed:
    """Time an evaluation of all images, with pictures and scores.

    Parameters
    ----------
    system : str
        The candidate.
    task : Task
        The evaluation.
    predictions : str or None
        The folder for the results with all class maps. None writes no class maps, as by default.

    Returns
    -------
    Timed
        The seconds, the peak memory, and the content of ``domains.json``.
    """
    logging.getLogger("recyclelora").setLevel(logging.WARNING)
    names = real_sets() if task.folder is None else [_registered(task.folder)]
    loaders = {name: build_test_loader(name, subset=task.images) for name in names}
    protocol = native(long_side=512)
    if task.folder is not None:
        protocol = replace(paper(), sizes=dict.fromkeys(names, LARGE))
    model = _model(system, task.sizes, task.weights)
    with tempfile.TemporaryDirectory() as folder, predictor(model, dtype=task.dtype) as predict:
        return timed(
            lambda: evaluate_domains(
                predict,
                loaders,
                protocol,
                predictions or folder,
                save_predictions=None if predictions is None else "train_ids",
            ),
            CPU,
        )


def segment(system: str, task: Task, windows: int) -> Timed:
    """Time the logits of windows of 512 x 512 pixels by the merged model; the value is their shape.

    Parameters
    ----------
    system : str
        The candidate.
    task : Task
        The model and the precision.
    windows : int
        The number of windows in one call.

    Returns
    -------
    Timed
        The seconds and the peak memory.
    """
    model = _model(system, task.sizes, task.weights)
    images = torch.randint(0, 256, (windows, 3, 512, 512), generator=torch.manual_seed(0)).float()
    with predictor(model, dtype=task.dtype) as predict:
        found = timed(lambda: predict(images), CPU)
    return found._replace(value=tuple(found.value.shape))
