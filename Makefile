# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/digits
JOBS ?= 2
# Further flags for the demo's bin/train, such as DEMO_FLAGS=--train.steps=100
DEMO_FLAGS ?=
FAULTS ?= 200
CASES ?= 2000

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help venv quick test lint demo faults fuzz clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## create .venv and install the package into it, in editable form

$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

quick: venv  ## run the tests that take no more than a few seconds each
	$(BIN)/python -m pytest --quiet -n $(JOBS) -m "not slow"

test: lint  ## lint and run every test
	$(BIN)/python -m pytest --quiet -n $(JOBS)

lint: venv  ## check style and format
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet

demo: venv  ## train on digits, evaluate, draw figures and export, in WORKDIR (runs/digits)
	$(BIN)/python bin/train --flagfile=configs/digits.flags --workdir=$(WORKDIR) $(DEMO_FLAGS)
	$(BIN)/python bin/evaluate --workdir=$(WORKDIR) --num_samples=100
	$(BIN)/python bin/figures --workdir=$(WORKDIR)
	$(BIN)/python bin/export --workdir=$(WORKDIR)

faults: venv  ## kill, tear and starve the programs FAULTS times (200), and see that nothing is lost
	$(BIN)/python benchmarks/faults.py --faults $(FAULTS)

fuzz: venv  ## give the programs CASES odd command lines and damaged files (2000)
	$(BIN)/python benchmarks/fuzz.py --cases $(CASES)

clean:  ## remove .venv, runs/ and what the tools left behind
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find matnet_tf tests bin -name __pycache__ -type d -prune -exec rm -rf {} +
