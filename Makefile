# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/digits
JOBS ?= 2
# More flags for the demo's bin/train, such as DEMO_FLAGS=--train.steps=100
DEMO_FLAGS ?=
# More arguments for make verify, such as VERIFY_FLAGS="--num_samples=1 digits"
VERIFY_FLAGS ?=
FAULTS ?= 200
CASES ?= 2000

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest --quiet -n $(JOBS)

.PHONY: help venv quick test serving page notebooks lint demo verify wheel faults fuzz clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## create .venv and install the package into it, editable

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

quick: venv  ## run the fast tests, in about a minute
	$(PYTEST) -m "not slow and not serving and not explore and not notebooks"

test: lint  ## lint and run all tests except those of `make serving`, `page` and `notebooks`
	$(PYTEST) -m "not serving and not explore and not notebooks"

serving: venv  ## test exports in a stand-in for TensorFlow Serving, the C API and other runtimes
	$(PYTEST) -m serving

page: venv  ## test the page of matnet explore in Chromium, which must be installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,page]'
	$(PYTEST) -m explore

notebooks: venv  ## execute the notebooks in examples/, one at a time
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,notebooks]'
	$(BIN)/python -m pytest --quiet -m notebooks

lint: venv  ## check style and format
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet

demo: venv  ## train on digits, evaluate, draw figures and export, in WORKDIR (runs/digits)
	$(BIN)/python bin/train --preset=digits --workdir=$(WORKDIR) $(DEMO_FLAGS)
	$(BIN)/python bin/evaluate --workdir=$(WORKDIR) --num_samples=100
	$(BIN)/python bin/figures --workdir=$(WORKDIR)
	$(BIN)/python bin/export --workdir=$(WORKDIR)
	@echo "The pictures are in $(WORKDIR)/figures. Next: your own pictures (docs/own-images.md), or"
	@echo "$(BIN)/python examples/keras_script.py runs/keras, a MatNet as a Keras model."

verify: venv  ## measure the trained models of the presets again and compare with their records
	$(BIN)/python benchmarks/verify.py $(VERIFY_FLAGS)

wheel: venv  ## build the wheel in dist/
	rm -rf build
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	rm -rf build

faults: venv  ## kill the programs and tear their files FAULTS times (200); nothing may be lost
	$(BIN)/python benchmarks/faults.py --faults $(FAULTS)

fuzz: venv  ## give the programs CASES (2000) odd command lines and damaged files
	$(BIN)/python benchmarks/fuzz.py --cases $(CASES)

clean:  ## remove .venv, runs/ and what the tools left behind
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find matnet_tf tests bin benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
