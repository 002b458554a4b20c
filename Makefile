# `make train` and `make test` each set up all they need in .venv on a machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: train test quick optuna4 soak sweep-soak check format lint types docs clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# hydra-optuna-sweeper and the Optuna that it requires, which is too old for this program; for tests/sweep.
$(VENV)/optuna_sweeper: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-deps --target $@ hydra-optuna-sweeper==1.3.0 optuna==2.10.1

# A user's installation, and a developer's; the stamps make them happen once.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/.installed

## Train the default agent on CartPole-v1 until it is solved; ARGS adds overrides.
train: $(VENV)/.installed
	$(BIN)/python -m dqn_runner $(ARGS)

## All tests, some six minutes on 2 cores.
test: $(VENV)/.installed-dev $(VENV)/optuna_sweeper
	$(BIN)/python -m pytest --numprocesses 2 $(ARGS)

## The quick tests, two minutes on 2 cores.
quick: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow" $(ARGS)

## The tests of studies once more, with the newest Optuna 4.
optuna4: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(VENV)/optuna4 optuna==4.9.0
	PYTHONPATH=$(VENV)/optuna4 $(BIN)/python -m pytest --numprocesses 2 tests/sweep/test_study.py tests/sweep/test_runner.py

## 200 runs killed at random moments: how many end as if they had not been? A quarter of an hour.
soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.soak.runs $(ARGS)

## A sweep killed at 15 random moments, and what it comes to all the same. Five minutes.
sweep-soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.soak.sweeps $(ARGS)

## Everything that CI checks.
check: lint types test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

## Write docs/reference.md anew from the dataclasses.
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
