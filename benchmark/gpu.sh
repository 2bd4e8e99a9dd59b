#!/usr/bin/env bash
# Build, test and measure on the present GPU in nine minutes; docs/benchmarks.md describes it.
# PYTHON=... names another interpreter than that of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
# A plain checkout is enough; the package need not be installed.
export PYTHONPATH=$PWD/projects/RecycleLoRA:$PWD/projects/DrawnStreets${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m benchmark.gpu "$@"
