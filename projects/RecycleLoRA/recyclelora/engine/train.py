"""Train a segmentor on its source domains and evaluate it on every target domain.

    python -m recyclelora.engine.train --config-file configs/demo.py
    python -m recyclelora.engine.train --config-file configs/demo.py --eval-only
    python -m recyclelora.engine.train --config-file configs/demo.py --check
    python -m recyclelora.engine.train --config-file F --num-gpus 4 train.output_dir=output/mine

``tools/lazyconfig_train_net.py`` is the same command. Without ``--eval-only``, it trains and then
evaluates. ``--eval-only`` evaluates ``evaluation.checkpoint`` or, without it, the newest checkpoint
in ``train.output_dir``. The overrides are ``key=value`` and follow the options.
"""

import contextlib
import signal
import sys
import traceback
from argparse import REMAINDER, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.utils import comm

from recyclelora.common.command_line import INTERRUPTED, tolerate_any_text
from recyclelora.common.validation import format_error
from recyclelora.ops.library import load_problem

from .build import load_config
from .check import check_run
from .evaluation import evaluate
from .launch import another_failed, claim_failure, launch_processes, resume_command
from .stopping import Stopped
from .training import train

ERROR = "error.txt"
_KEPT = f"{INTERRUPTED}; --eval-only --resume continues after the finished targets"


def argument_parser() -> ArgumentParser:
    """Return an argument parser with the options of Detectron2's, and ``--check``.

    Returns
    -------
    ArgumentParser
        The parser.
    """
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--config-file",
        default="",
        metavar="FILE",
        help="path of a config, or the name of a shipped one, such as demo",
    )
    add(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in train.output_dir; with --eval-only, continue "
        "an interrupted evaluation",
    )
    add("--eval-only", action="store_true", help="evaluate a checkpoint, without training")
    add(
        "--check",
        action="store_true",
        help="validate config, data, weights, memory and /dev/shm, and print what would run, "
        "without training or writing files",
    )
    add("--num-gpus", type=int, default=1, help="GPUs of each machine to use (default: 1)")
    add("--num-machines", type=int, default=1, help="number of machines (default: 1)")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0 (default: 0)")
    add(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="tcp://HOST:PORT on the first machine; required for several machines",
    )
    add("opts", nargs=REMAINDER, metavar="key=value", help="overrides of the config")
    return parser


def run(args: Namespace) -> None:
    """Run one process of a run. After an error it prints one sentence and exits with code 1.

    A run that was asked to stop prints the command that resumes it and exits with code 0. If Ctrl-C
    ends an evaluation, or a training that has not saved anything, the exit code is 130.

    Parameters
    ----------
    args : Namespace
        The parsed command line.
    """
    output, check = None, getattr(args, "check", False)
    try:
        cfg = load_config(args.config_file, args.opts)
        if check:
            report = check_run(cfg, resume=args.resume, eval_only=args.eval_only)
            if comm.is_main_process():
                print(report, flush=True)
            return
        output = Path(cfg.train.output_dir)
        if args.eval_only:
            evaluate(cfg, resume=args.resume)
        else:
            train(cfg, resume=args.resume)
    except Stopped:
        if another_failed():  # its launcher has stopped this process
            sys.exit(1)
        if comm.is_main_process():
            print(f"stopped; nothing is lost. To continue: {resume_command()}", flush=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # launchers forward the signal again
        if comm.is_main_process():
            kept = args.eval_only and not check
            print(_KEPT if kept else INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        if not claim_failure(error):
            sys.exit(1)
        with contextlib.suppress(OSError):  # the error may be a full disk
            if output is not None and output.is_dir():  # the traceback, for bug reports
                report = traceback.format_exc().encode(errors="backslashreplace")
                (output / ERROR).write_bytes(report)
        sys.exit(f"error: {format_error(error)}")
    if comm.is_main_process():
        with contextlib.suppress(OSError):
            (output / ERROR).unlink()  # the error of an earlier run


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the processes of the run that a command line describes.

    Parameters
    ----------
    arguments : sequence of str, optional
        The arguments; those of this process by default.
    """
    tolerate_any_text()
    args = argument_parser().parse_args(arguments)
    if problem := load_problem():
        sys.exit(f"error: {problem}")
    try:
        launch_processes(run, args)
    except torch.multiprocessing.ProcessExitedException as error:
        _exit_as(error)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")


def _exit_as(error: torch.multiprocessing.ProcessExitedException) -> None:
    """Exit like the failed child process, which has printed its error unless a signal killed it."""
    if error.signal_name is not None:
        sys.exit(
            f"error: process {error.error_index} of the run was ended by {error.signal_name}, "
            "perhaps because memory ran out: --resume continues a training from its last "
            "checkpoint"
        )
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
