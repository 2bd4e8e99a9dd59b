"""How images come in: the published training pipeline, and a test loader per target domain."""

from detectron2.config import LazyCall as L

from recyclelora.data import TrainMapper, build_test_loader, build_train_loader, register_folder


def train_loader(*sources, crop=512, batch=4, pad_to_crop=True):
    """Pool the registered ``sources``; the paper pads with black for GTAV or Cityscapes alone."""
    return L(build_train_loader)(
        dataset=list(sources),
        mapper=L(TrainMapper)(crop=crop, pad_to_crop=pad_to_crop),
        total_batch_size=batch,
        seed="${train.seed}",
        num_workers=None,  # one for each core, at most 8
    )


def test_loader(dataset, subset=None):
    """Every image of a registered dataset, or a seeded ``subset`` of so many."""
    return L(build_test_loader)(dataset=dataset, subset=subset, num_workers=None)


def folder(root, name):
    """``root/name/images`` and ``root/name/labels`` (train ids), registered as ``name``."""
    return L(register_folder)(
        name=name, images=f"{root}/{name}/images", labels=f"{root}/{name}/labels"
    )
