#!/usr/bin/env python
"""Write what a run has trained, without the base weights, as one small file.

    python tools/export_trained.py --config-file configs/streets_to_real.py \
        output/streets_to_real/recyclelora_seed0/iter_0000300.pth trained.pth --half

The file goes where a checkpoint does, as ``train.init_checkpoint=trained.pth``; the base is loaded
by the config, as for a training. Overrides ``key=value`` are those of the run.
"""

import argparse
import sys
from pathlib import Path

import torch

from recyclelora.common.validation import format_error
from recyclelora.engine import read_checkpoint, save_trained
from recyclelora.engine.run import build_from
from recyclelora.engine.train import load_config


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("checkpoint", help="iter_XXXXXXX.pth of the run")
    parser.add_argument("output", type=Path, help="the file to write")
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the run")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Export; bad input ends in one sentence and exit code 1."""
    args = parse(arguments)
    try:
        content = read_checkpoint(args.checkpoint)
        cfg = load_config(args)
        model = build_from(cfg, content, source=args.checkpoint, device=torch.device("cpu"))
        dtype = torch.float16 if args.half else None
        save_trained(args.output, model=model, iteration=content["iteration"], dtype=dtype)
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {args.output}, {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
