#!/usr/bin/env python
"""Run the rows of a table, one after the other, and compare them to the published numbers.

    python tools/reproduce.py --list
    python tools/reproduce.py --table 3 --row 17 --dry-run
    python tools/reproduce.py --table 9 11 --seeds 0 1 2 --num-gpus 4
    nohup python tools/reproduce.py --table streets_to_real > reproduce.log 2>&1 &
    python tools/reproduce.py --table 5 --scratch /tmp/try train.max_iter=20

Tables 3 to 12 are those of the paper. Give a row by its printed number or by the name of its
config. Finished runs are skipped, and interrupted runs are resumed: stop with Ctrl-C or SIGTERM,
and run the same command again to continue. Several processes, or several machines with one shared
folder, divide the runs if they run the same command. Assign a GPU to each process with
CUDA_VISIBLE_DEVICES.

A run writes to ``output/TABLE/ROW_seedN`` and, when it ends, to ``results/TABLE/ROW_seedN.json``.
Runs of the paper's tables write to ``paper/CONFIG_seedN``, once for all tables that contain them.
``--output FOLDER`` replaces ``output``, to keep checkpoints outside the checkout. The table is
printed and written to ``results/tables/`` as Markdown and CSV. ``--measure`` writes what the
adapters of runs learned, from their checkpoints, to ``results/adapters/``. Overrides ``key=value``
apply to every run and need ``--scratch FOLDER``, to which all output is then written.
"""

import argparse
import sys
from collections.abc import Sequence

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.reproduce.checkout import find_checkout
    from recyclelora.reproduce.queue import TABLE_NAMES, reproduce
    from recyclelora.reproduce.runs import STOPPED
    from recyclelora.reproduce.workspace import Workspace
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="reproduce.py [options] [key=value ...]",
    )
    add = parser.add_argument
    add("--table", nargs="+", choices=TABLE_NAMES, metavar="TABLE", help=", ".join(TABLE_NAMES))
    add("--row", nargs="+", help="rows to run; --list shows their numbers and names")
    add("--seeds", nargs="+", type=int, help="seeds to run (default for the paper's tables: 0)")
    add("--list", action="store_true", help="show the published score and the state of every row")
    add("--dry-run", action="store_true", help="show the remaining commands")
    add("--collect", action="store_true", help="write the tables from finished runs, run nothing")
    add("--measure", action="store_true", help="write what the adapters of finished runs learned")
    add("--num-gpus", type=int, default=1, help="GPUs of this machine per run (default: 1)")
    add("--output", type=path_argument, help="folder for checkpoints and logs (default: output)")
    add("--scratch", type=path_argument, help="folder for runs with other settings")
    add("--root", type=path_argument, help="checkout (default: from the working directory)")
    arguments = sys.argv[1:] if arguments is None else arguments
    # Removed before parsing, because options with several values would consume them.
    overrides = [one for one in arguments if "=" in one and not one.startswith("-")]
    args = parser.parse_args([one for one in arguments if one not in overrides])
    args.overrides = overrides
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """List, show or run rows; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    args = parse(arguments)
    action = next((a for a in ("list", "dry_run", "collect", "measure") if getattr(args, a)), "run")
    try:
        workspace = Workspace(
            args.root or find_checkout(),
            scratch=args.scratch,
            output=args.output,
            overrides=args.overrides,
            num_gpus=args.num_gpus,
        )
        reproduce(workspace, args.table, rows=args.row, seeds=args.seeds, action=action)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {format_error(error)}")
    except KeyboardInterrupt:
        print(STOPPED, flush=True)
        sys.exit(130)


if __name__ == "__main__":
    run_command(main)
