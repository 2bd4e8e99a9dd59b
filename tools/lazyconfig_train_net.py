#!/usr/bin/env python
"""Train a segmentor on its source domains and evaluate it on every target domain.

python tools/lazyconfig_train_net.py --config-file configs/demo.py
python tools/lazyconfig_train_net.py --config-file configs/demo.py --eval-only
python tools/lazyconfig_train_net.py --config-file F --num-gpus 4 train.output_dir=output/mine
"""

import contextlib
import sys
import traceback
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from detectron2.config import LazyConfig
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from recyclelora.bad_input import sentence_of
from recyclelora.engine.config_check import SECTIONS, check_config
from recyclelora.engine.launch import launch_processes, resume_command
from recyclelora.engine.overrides import apply_overrides
from recyclelora.engine.run import evaluate, train
from recyclelora.engine.stopping import Stopped


def options() -> ArgumentParser:
    """Detectron2's; the processes of one machine meet at a free port, for several may run here."""
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(dist_url="auto")
    return parser


def read_config(file: str) -> DictConfig:
    """The sections of a config file, which is Python, and runs."""
    if not file:
        raise ValueError("no config: give --config-file, for instance configs/demo.py")
    if not Path(file).is_file():
        raise FileNotFoundError(f"no config at {file}: see configs/ for those that exist")
    if not file.endswith(".py"):  # Detectron2 would read YAML, and run what tags in it name
        raise ValueError(f"a config is a Python file (.py), got {file}: see configs/")
    try:
        loaded = LazyConfig.load(file)
    except Exception as error:  # a program in which anything may be wrong
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise ValueError(
            f"{where}: the config does not load ({type(error).__name__}: {error}); correct it"
        ) from error
    missing = [section for section in SECTIONS if section not in loaded]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}: see configs/demo.py")
    # What a config imported to build its sections is not part of the run: an override of it would
    # be without effect, so it is unknown.
    return OmegaConf.create({s: loaded[s] for s in SECTIONS}, flags={"allow_objects": True})


def load_config(args: Namespace) -> DictConfig:
    """The config file with the command line's ``key=value`` applied, checked as a whole."""
    cfg = apply_overrides(read_config(args.config_file), args.opts)
    check_config(cfg)
    return cfg


def main(args: Namespace) -> None:
    """One process of the run; whatever stops it, it ends with one sentence and exit code 1.

    A run that was asked to stop ends with the command that resumes it, and exit code 0.
    """
    output = None
    try:
        cfg = load_config(args)
        output = Path(cfg.train.output_dir)
        if args.eval_only:
            evaluate(cfg)
        else:
            train(cfg, resume=args.resume)
    except Stopped:
        if comm.is_main_process():
            print(f"stopped, nothing is lost; to go on: {resume_command()}", flush=True)
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk is a reason to be here
            if output is not None and output.is_dir():  # where it happened, for who wants to know
                report = traceback.format_exc().encode(errors="backslashreplace")
                (output / "error.txt").write_bytes(report)
        sys.exit(f"error: {sentence_of(error)}")


if __name__ == "__main__":
    arguments = options().parse_args()
    try:
        launch_processes(main, arguments)
    except torch.multiprocessing.ProcessExitedException:
        sys.exit(1)  # the process has said why
    except Exception as error:
        sys.exit(f"error: {sentence_of(error)}")
