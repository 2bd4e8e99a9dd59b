"""The published training pipeline, and a test loader for each target domain."""

from detectron2.config import LazyCall as L

from recyclelora.data import TrainMapper, build_test_loader, build_train_loader, register_folder


def train_loader(*sources, crop=512, batch=4, pad_to_crop=True):
    """Return a loader of all ``sources``; the paper pads with black only for a single source."""
    return L(build_train_loader)(
        dataset=list(sources),
        mapper=L(TrainMapper)(crop=crop, pad_to_crop=pad_to_crop),
        total_batch_size=batch,
        seed="${train.seed}",
        num_workers=None,  # one for each core, at most 8
    )


def test_loader(dataset, subset=None):
    """Return a loader of all images of a registered dataset, or of a seeded ``subset``."""
    return L(build_test_loader)(dataset=dataset, subset=subset, num_workers=None)


def folder(root, name):
    """Register ``root/name/images`` and ``root/name/labels`` (train ids) as ``name``."""
    return L(register_folder)(
        name=name, images=f"{root}/{name}/images", labels=f"{root}/{name}/labels"
    )
