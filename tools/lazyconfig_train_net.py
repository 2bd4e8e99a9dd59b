#!/usr/bin/env python
"""Train a segmentor on its source domains and evaluate it on every target domain.

python tools/lazyconfig_train_net.py --config-file configs/demo.py
python tools/lazyconfig_train_net.py --config-file configs/demo.py --eval-only
python tools/lazyconfig_train_net.py --config-file F --num-gpus 4 train.output_dir=output/mine
"""

import sys
import traceback
from argparse import Namespace
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.engine import default_argument_parser
from omegaconf import DictConfig, OmegaConf

from recyclelora.engine.launch import launch_processes
from recyclelora.engine.overrides import apply_overrides
from recyclelora.engine.run import evaluate, train

# What bad input raises; anything else is a bug of ours and keeps its traceback on the screen.
INPUT_ERRORS = (ValueError, OSError, FloatingPointError)

SECTIONS = ("train", "model", "optimizer", "schedule", "dataloader", "evaluation")


def load_config(args: Namespace) -> DictConfig:
    """The config file with the command line's ``key=value`` applied."""
    if not args.config_file:
        raise ValueError("no config: give --config-file, for instance configs/demo.py")
    if not Path(args.config_file).is_file():
        raise FileNotFoundError(
            f"no config at {args.config_file}: see configs/ for those that exist"
        )
    loaded = LazyConfig.load(args.config_file)
    missing = [section for section in SECTIONS if section not in loaded]
    if missing:
        raise ValueError(f"{args.config_file} lacks {', '.join(missing)}: see configs/demo.py")
    # What a config imported to build its sections is not part of the run: an override of it would
    # be without effect, so it is unknown.
    cfg = OmegaConf.create({s: loaded[s] for s in SECTIONS}, flags={"allow_objects": True})
    return apply_overrides(cfg, args.opts)


def main(args: Namespace) -> None:
    """One process of the run; bad input ends it with one sentence and exit code 1."""
    output = None
    try:
        cfg = load_config(args)
        output = Path(cfg.train.output_dir)
        if args.eval_only:
            evaluate(cfg)
        else:
            train(cfg, resume=args.resume)
    except INPUT_ERRORS as error:
        if output is not None and output.is_dir():  # where it happened, for whoever wants to know
            (output / "error.txt").write_text(traceback.format_exc())
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    arguments = default_argument_parser(epilog=__doc__).parse_args()
    try:
        launch_processes(main, arguments)
    except ValueError as error:
        sys.exit(f"error: {error}")
