#!/usr/bin/env python
"""Check whether the datasets in DETECTRON2_DATASETS are complete and readable.

    python tools/check_datasets.py cityscapes_val bdd100k_val mapillary_vistas_val
    python tools/check_datasets.py --quick --json datasets.json

Without names, the tool checks all benchmarks. For each dataset, it reports the searched folders,
the pairs found and expected, and the share of each class. It lists files that are unpaired or
unreadable, labels that differ from their image in size or contain unknown values, and what to
download if something is missing. Each file is read once; --quick reads only the headers.

Exit codes: 0 every dataset is complete and clean; 1 the check could not run; 2 the command line is
invalid; 3 a dataset or a part of one is missing; 4 files are faulty. Known faults of a release,
which training skips (labels of GTAV that differ from their image in size), are listed but do not
change the exit code.
"""

import argparse
import os
import sys

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.data.check_report import report_datasets
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="registered datasets (default: all benchmarks)")
    parser.add_argument("--quick", action="store_true", help="only count files and read headers")
    parser.add_argument(
        "--json", type=path_argument, metavar="FILE", help="write the full result to FILE"
    )
    # The cores that this process may use. macOS does not report them.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=min(cores, 8), help="number of processes")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the check and exit with one of the codes above."""
    tolerate_any_text()
    args = argument_parser().parse_args(arguments)
    try:
        text, code = report_datasets(
            args.names, quick=args.quick, workers=args.workers, json_file=args.json
        )
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the next check starts from the beginning", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(text)
    sys.exit(code)


if __name__ == "__main__":
    run_command(main)
