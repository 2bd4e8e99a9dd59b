"""A short run of every kind of model, for test_distributed_run.py: OUTPUT STREETS.

Alone or under torchrun; the runs are ``OUTPUT/KIND``.
"""

import logging
import sys
from argparse import Namespace
from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from recyclelora.baselines import fine_tune
from recyclelora.config.overrides import apply_overrides
from recyclelora.engine.launch import launch_processes
from recyclelora.engine.training import train

TINY = Path(__file__).with_name("tiny_config.py")
RECOMPUTE = "train.checkpointing=true"
KINDS = {
    "adapters": [],
    "main": ["model.backbone.r_sub=0"],
    "sub": ["model.backbone.r_main=0"],
    "frozen": ["model.backbone.r_main=0", "model.backbone.r_sub=0"],
    "sparse": ["model.backbone.sparse_a=true"],
    "recomputed": [RECOMPUTE],
    "sparse_recomputed": ["model.backbone.sparse_a=true", RECOMPUTE],
    "accumulated": [RECOMPUTE, "train.accumulate=2"],
    "fine_tuned": ["train.ema=0.9"],
    "fine_tuned_recomputed": [RECOMPUTE],
}
STEPS = 3  # DDP reports in step 2 that a parameter got no gradient in step 1


def main(args: Namespace) -> None:
    """Train every kind of model in one process."""
    common = [
        f"dataloader.streets={args.streets}",
        "dataloader.train.total_batch_size=4",
        f"train.max_iter={STEPS}",
        "train.picture_period=0",
        "train.checkpoint_period=0",
        "dataloader.test.night=null",
        "dataloader.test.day.subset=2",
    ]
    for kind, overrides in KINDS.items():
        cfg = LazyConfig.load(str(TINY))
        folder = f"train.output_dir={args.output}/{kind}"
        cfg = apply_overrides(cfg, [*common, *overrides, folder])
        if kind.startswith("fine_tuned"):
            cfg.model.backbone = L(fine_tune)(module=cfg.model.backbone.module)
        train(cfg)
        for name in ("recyclelora", "detectron2", "fvcore"):  # the next run opens its own log
            logging.getLogger(name).handlers.clear()


if __name__ == "__main__":
    options = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    launch_processes(main, Namespace(output=sys.argv[1], streets=sys.argv[2], **options))
