# Every target does its set-up in .venv. Targets may be run again; finished steps are skipped.
# Another Python: make PYTHON=python3.12 setup

PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGE := projects/RecycleLoRA/recyclelora
SOURCES := $(filter-out %.md,$(wildcard csrc/*.* csrc/*/*.* $(PACKAGE)/include/*/*))
CPP := $(filter-out %.def,$(SOURCES)) $(wildcard examples/cpp/*.cpp examples/cpp/*/*.cpp tests/ops/*.cpp tests/ops/*.h)
LIBRARY := $(PACKAGE)/_C.abi3.so
PYTEST := $(BIN)/python -m pytest
PARALLEL := --numprocesses logical --maxprocesses 8 --dist loadfile # each needs about 3 GB
APP := .venv-app
LINTED := benchmark configs docs examples projects tests tools setup.py

.PHONY: help setup app demo benchmark docs test test-slow test-all test-app lint format clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(LIBRARY)  ## create .venv with torch, detectron2 and this package (5 GB, some minutes)

app: $(APP)/ready  ## make .venv-app, in which tools/app.py runs

demo: setup  ## adapt, train on drawn streets, evaluate on other domains, draw a picture
	$(BIN)/python tools/demo.py

benchmark: setup $(STAMPS)/benchmark  ## measure against SciPy, peft and Hugging Face; rewrite results/
	$(BIN)/python -m benchmark.rrqr --weights dinov2_vits14_focus
	$(BIN)/python -m benchmark.adapter
	$(BIN)/python -m benchmark.step --batch 2
	$(BIN)/python -m benchmark.step_sizes
	$(BIN)/python -m benchmark.memory
	$(BIN)/python -m benchmark.hours
	$(BIN)/python -m benchmark.models
	$(BIN)/python tools/update_readme.py

docs: setup $(STAMPS)/docs  ## build the documentation site in build/docs; warnings are errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs

test: setup $(STAMPS)/benchmark  ## run the tests of at most a few seconds each
	$(PYTEST) -m "not slow" $(PARALLEL)

test-slow: setup $(STAMPS)/benchmark  ## run the slow tests
	$(PYTEST) -m slow $(PARALLEL)

test-all: test test-slow  ## run all tests

test-app: $(APP)/ready  ## run the tests of tools/app.py in .venv-app; most need Chromium
	$(APP)/bin/python -m pytest tests/tools/test_app.py

lint: setup  ## check with ruff and clang-format
	$(BIN)/ruff check $(wildcard $(LINTED))
	$(BIN)/ruff format --check $(wildcard $(LINTED))
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: setup  ## apply the fixes of ruff and clang-format
	$(BIN)/ruff check --fix $(wildcard $(LINTED))
	$(BIN)/ruff format $(wildcard $(LINTED))
	$(BIN)/clang-format -i $(CPP)

clean:  ## remove builds, .venv and .venv-app, keep trained models
	rm -rf .venv $(APP) build dist .pytest_cache .ruff_cache projects/RecycleLoRA/*.egg-info
	rm -f $(LIBRARY) $(PACKAGE)/_interruption.*.so

# Each step has a stamp. The stamp `venv` does not exist while pip fills .venv, so an interrupted
# set-up, which may leave incomplete packages, starts again from an empty .venv.
$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: Expected Python 3.10 to 3.13, but '$(PYTHON)' is not:" \
	    "name one, as in make PYTHON=python3.11 setup" >&2; exit 1; }
	@if [ -d $(STAMPS) ]; then echo "[set-up] the last set-up was interrupted: emptying .venv"; fi
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

# PATH: torch's build tools search it for ninja.
$(LIBRARY): setup.py pyproject.toml $(SOURCES) $(STAMPS)/detectron2
	@echo "[set-up] compiling csrc/ and installing recyclelora in editable mode"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --quiet --no-build-isolation --no-deps -e .
	@$(PIP) check
	@$(BIN)/python -m recyclelora.collect_env | sed -n "s/^extension built  */[set-up] compiled /p"
	@touch $@

$(STAMPS)/benchmark: $(LIBRARY)
	@echo "[set-up] installing the libraries that the benchmarks and tests compare with"
	@$(PIP) install --quiet "recyclelora[benchmark,onnx,timm]"
	@# In a separate folder and without dependencies (a `typing` of Python 2), for one test.
	@$(PIP) install --quiet --no-deps --target .venv/oracles --upgrade \
	  cityscapesscripts==2.3.0 pyquaternion==0.9.9
	@touch $@

$(STAMPS)/docs: $(LIBRARY)
	@echo "[set-up] installing what the documentation needs"
	@$(PIP) install --quiet "recyclelora[docs]"
	@touch $@

# Gradio needs an older Pillow than the one in .venv. .venv-app has both, and finds all other
# packages in .venv, which it searches after its own.
$(APP)/ready: $(LIBRARY)
	@echo "[set-up] making $(APP): Gradio and what it needs, beside .venv"
	@$(BIN)/python -m venv --clear $(APP)
	@$(APP)/bin/python -c 'import pathlib, sys, sysconfig; \
	  own = pathlib.Path(sysconfig.get_path("purelib")); \
	  base = pathlib.Path(".venv").resolve() / own.relative_to(sys.prefix); \
	  (own / "base.pth").write_text(f"import site; site.addsitedir({str(base)!r})\n")'
	@$(APP)/bin/python -m pip --disable-pip-version-check install --quiet gradio==6.31.0 \
	  playwright==1.65.2
	@touch $@
