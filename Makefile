# The commands of this project; `make` alone lists them. Everything runs in the environment VENV,
# which is made on first use.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
CORES ?= $(shell nproc)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(abspath $(BIN)):$(PATH)
export UV_HTTP_TIMEOUT ?= 300
# A hundred short jobs import PyTorch: let the first leave its bytecode for the others.
unexport PYTHONDONTWRITEBYTECODE

ALL_TESTS := -n $(CORES) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo smoke test test-fast test-long coverage lint types docs format lock sync clean

help:  ## List these commands.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY)  ## Make the environment: pinned packages, every one checked by its hash.

$(READY): requirements.lock envs/installer.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "capscope needs Python 3.11 or later; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "Python's venv module is missing: sudo apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r envs/installer.lock
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## Run the main job on the embedded data, from drawing scenes to the results page.
	snakemake --cores $(CORES) all
	@capscope report --summary --results results/scenes

smoke: $(READY)  ## Run the same steps on a handful of images.
	snakemake --cores $(CORES) --configfile config/smoke.yaml -- all

test: $(READY)  ## Run all tests.
	python -m pytest $(ALL_TESTS)

test-fast: $(READY)  ## Run the tests that take less than a second each.
	python -m pytest -n $(CORES) --dist loadfile -m "not slow and not long"

test-long: $(READY)  ## Run the tests that take minutes: clusters, hundreds of kills, 100,000 images.
	python -m pytest -m long

coverage: $(READY)  ## Run all tests and say which lines of src they leave out.
	python -m pytest $(ALL_TESTS) --cov --cov-report term-missing:skip-covered

lint: $(READY)  ## Check style and format of Python and of the workflow.
	ruff check .
	ruff format --check .
	snakefmt --check --compact-diff Snakefile workflow
	snakemake --lint

types: $(READY)  ## Check the types.
	mypy

docs: $(READY)  ## Build the documentation as a site, build/docs/index.html; warnings are errors.
	python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs

format: $(READY)  ## Format Python and the workflow.
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

sync: $(READY)  ## After a clone: fetch finished results with DVC and tell Snakemake about them.
	dvc pull
	snakemake --cores $(CORES) --touch all

lock:  ## Pin the newest allowed packages with their hashes (needs uv).
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-annotate --no-header --extra dev pyproject.toml -o requirements.lock
	grep '^uv==' requirements.lock | cut -d' ' -f1 | uv pip compile --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header - \
	  -o envs/installer.lock

clean:  ## Remove the environment and all results that the workflow made.
	rm -rf $(VENV)
	find results -mindepth 1 -maxdepth 1 ! -name published ! -name '*.csv' -exec rm -rf {} +
