#!/usr/bin/env python
"""Write the README's tables anew from the JSON of runs under results/.

python tools/update_readme.py           rewrite README.md
python tools/update_readme.py --check   exit 1 if it is not what the JSON says
"""

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]


def demo_table() -> str:
    """The demo's domains, what one constant class would score, and what it ran on."""
    run = json.loads((ROOT / "results" / "demo.json").read_text())
    domains = run["result"]["domains"]
    rows = [
        [name, scores["images"], f"{scores['mIoU']:.1f}", f"{run['one_class'][name]:.1f}"]
        for name, scores in domains.items()
    ]
    headers = ["domain", "images", "mIoU", "one class"]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    seconds = run["seconds"]
    drawing, training = seconds["draw"], seconds["train and evaluate"]
    return (
        f"{table}\n\n"
        f"`make demo` on {run['machine']}: drawing {drawing:.0f} s, training and evaluation "
        f"{training:.0f} s, at most {run['peak_memory_gb']:.1f} GB in one process; torch "
        f"{run['torch']}, commit {run['commit']}. mIoU in percent; *one class* is what the best "
        "constant prediction would score. Trained on the drawn day alone; `camvid_*` and "
        "`lmf_*` are real photographs."
    )


TABLES = {"demo": demo_table}


def updated(readme: str) -> str:
    """``readme`` with every table between its markers written anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- begin table: {name} -->", f"<!-- end table: {name} -->"
        before, found, rest = readme.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"README.md has no markers {begin} and {end}")
        readme = f"{before}{begin}\n{table()}\n{end}{after}"
    return readme


def main() -> None:
    """Rewrite or check README.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    path = ROOT / "README.md"
    old = path.read_text()
    new = updated(old)
    if parser.parse_args().check:
        sys.exit("README.md differs from results/: run tools/update_readme.py" if new != old else 0)
    path.write_text(new)


if __name__ == "__main__":
    main()
