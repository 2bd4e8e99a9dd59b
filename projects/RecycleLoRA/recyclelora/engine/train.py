"""Train a segmentor on its source domains and evaluate it on every target domain.

python -m recyclelora.engine.train --config-file configs/demo.py
python -m recyclelora.engine.train --config-file configs/demo.py --eval-only
python -m recyclelora.engine.train --config-file F --num-gpus 4 train.output_dir=output/mine

``tools/lazyconfig_train_net.py`` is the same command.
"""

import contextlib
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from recyclelora.common.validation import format_error

from .build import load_config
from .evaluation import evaluate
from .launch import launch_processes, resume_command
from .stopping import Stopped
from .training import train


def argument_parser() -> ArgumentParser:
    """Detectron2's parser; the processes of one machine meet at a free port."""
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(dist_url="auto")
    return parser


def run(args: Namespace) -> None:
    """Run one process; an error ends it with one sentence and exit code 1.

    A run that was asked to stop prints the command that resumes it and ends with exit code 0.
    """
    output = None
    try:
        cfg = load_config(args.config_file, args.opts)
        output = Path(cfg.train.output_dir)
        if args.eval_only:
            evaluate(cfg, resume=args.resume)
        else:
            train(cfg, resume=args.resume)
    except Stopped:
        if comm.is_main_process():
            print(f"stopped, nothing is lost; to go on: {resume_command()}", flush=True)
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk may be the error
            if output is not None and output.is_dir():  # the traceback, for bug reports
                report = traceback.format_exc().encode(errors="backslashreplace")
                (output / "error.txt").write_bytes(report)
        sys.exit(f"error: {format_error(error)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the processes of the run that the command line describes."""
    args = argument_parser().parse_args(arguments)
    try:
        launch_processes(run, args)
    except torch.multiprocessing.ProcessExitedException:
        sys.exit(1)  # the process has printed its error
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")


if __name__ == "__main__":
    main()
