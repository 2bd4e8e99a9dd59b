# Every target does the set-up it needs, into .venv, and may be run again: what is done is not redone.
# Another Python: make PYTHON=python3.12 setup

PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGE := projects/RecycleLoRA/recyclelora
SOURCES := $(filter-out %.md,$(wildcard csrc/*.* csrc/*/*.* $(PACKAGE)/include/*/*))
CPP := $(filter-out %.def,$(SOURCES)) $(wildcard examples/cpp/*.cpp tests/ops/*.cpp tests/ops/*.h)
LIBRARY := $(PACKAGE)/_C.abi3.so
PYTEST := $(BIN)/python -m pytest
LINTED := benchmark configs docs examples projects tests tools setup.py

.PHONY: help setup demo benchmark docs test test-slow test-all lint format clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(LIBRARY)  ## make .venv: torch, detectron2, this package (5 GB, some minutes)

demo: setup  ## adapt, train on drawn streets, evaluate on other domains, draw the picture
	$(BIN)/python tools/demo.py

benchmark: setup $(STAMPS)/benchmark  ## time it against SciPy, peft and Hugging Face; rewrite results/
	$(BIN)/python -m benchmark.rrqr --weights dinov2_vits14_focus
	$(BIN)/python -m benchmark.adapter
	$(BIN)/python -m benchmark.step --batch 2 --precisions bfloat16
	$(BIN)/python -m benchmark.memory
	$(BIN)/python -m benchmark.hours
	$(BIN)/python -m benchmark.models
	$(BIN)/python tools/update_readme.py

docs: setup $(STAMPS)/docs  ## the documentation site, in build/docs; warnings are errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs

test: setup  ## the tests of at most a few seconds each
	$(PYTEST) -m "not slow"

test-slow: setup $(STAMPS)/benchmark  ## the other tests
	$(PYTEST) -m slow

test-all: test test-slow  ## all tests

lint: setup  ## ruff and clang-format, changing nothing
	$(BIN)/ruff check $(wildcard $(LINTED))
	$(BIN)/ruff format --check $(wildcard $(LINTED))
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: setup  ## let ruff and clang-format rewrite what they can
	$(BIN)/ruff check --fix $(wildcard $(LINTED))
	$(BIN)/ruff format $(wildcard $(LINTED))
	$(BIN)/clang-format -i $(CPP)

clean:  ## remove what was built and set up, not what was trained
	rm -rf .venv build dist .pytest_cache .ruff_cache projects/RecycleLoRA/*.egg-info
	rm -f $(LIBRARY)

# One stamp a step. The stamp `venv` is away while pip fills .venv, so that a set-up that was cut off
# there, with packages perhaps half written, begins again from an empty .venv.
$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: Expected Python 3.10 to 3.13, but '$(PYTHON)' is not:" \
	    "name one, as in make PYTHON=python3.11 setup" >&2; exit 1; }
	@if [ -d $(STAMPS) ]; then echo "[set-up] the last set-up was cut off: emptying .venv"; fi
	@$(PYTHON) -m venv $$([ ! -d $(STAMPS) ] || echo --clear) .venv
	@# pip 26 refuses the detectron2 archive; detectron2 v0.6 needs pkg_resources (setuptools < 81).
	$(PIP) install --quiet "pip>=23.2,<26" "setuptools>=77,<81"
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: requirements.txt $(STAMPS)/venv
	@echo "[set-up] installing torch and the other requirements (5 GB once unpacked)"
	@rm $(STAMPS)/venv
	trap 'exit 130' INT TERM; $(PIP) install -r requirements.txt || { touch $(STAMPS)/venv; exit 1; }
	@touch $(STAMPS)/venv $@

$(STAMPS)/detectron2: tools/install_detectron2.py $(STAMPS)/requirements
	$(BIN)/python tools/install_detectron2.py
	@touch $@

# PATH: torch's build tools look there for ninja.
$(LIBRARY): setup.py pyproject.toml $(SOURCES) $(STAMPS)/detectron2
	@echo "[set-up] compiling csrc/ and installing recyclelora in editable mode"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --quiet --no-build-isolation --no-deps -e .
	@$(PIP) check
	@$(BIN)/python -m recyclelora.collect_env | sed -n "s/^extension built  */[set-up] compiled /p"
	@touch $@

$(STAMPS)/benchmark: $(LIBRARY)
	@echo "[set-up] installing what the benchmarks and slow tests compare with"
	@$(PIP) install --quiet "recyclelora[benchmark,onnx,timm]"
	@# Aside and without what they require (a `typing` of Python 2): for one test, which looks there.
	@$(PIP) install --quiet --no-deps --target .venv/oracles --upgrade \
	  cityscapesscripts==2.3.0 pyquaternion==0.9.9
	@touch $@

$(STAMPS)/docs: $(LIBRARY)
	@echo "[set-up] installing what the documentation needs"
	@$(PIP) install --quiet "recyclelora[docs]"
	@touch $@
