# Every target sets up what it needs in .venv, on a machine with Python >= 3.11. A `##` line describes the target
# below it; `make help` prints these lines.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what is imported; compiling everything would take longer than the download.
PIP := $(BIN)/python -m pip install --quiet --no-compile
INSTALL := $(PIP) --constraint constraints.txt

# The tests start many processes: let them reuse what Python has compiled, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

# What the tests need. A package that .venv cannot contain gets a separate directory and target: list it here.
TEST_SETUP := $(VENV)/.installed-dev $(VENV)/optuna_sweeper $(VENV)/rl_zoo3

# Three workers for two cores, since many tests wait for a process that they have started; at most 6. Four took longer.
PYTEST := $(BIN)/python -m pytest
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS := $(shell echo $$(( $(CORES) > 4 ? 6 : ($(CORES) * 3 + 1) / 2 )))
PARALLEL := $(PYTEST) --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help train check format lint types daily test quick optuna4 soak sweep-soak fuzz docs results docs-check site clean

# Installations into .venv must follow one another. What `check` starts may run in parallel: all is installed then.
ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:
endif

# The pip that Python has can be years old, and then takes twice as long for an installation.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

# hydra-optuna-sweeper and the Optuna that it requires, which is too old for this program; for tests/sweep.
$(VENV)/optuna_sweeper: | $(BIN)/python
	$(PIP) --no-deps --target $@ hydra-optuna-sweeper==1.3.0 optuna==2.10.1

# rl_zoo3, of which tests/coming_from reads the sources.
$(VENV)/rl_zoo3: | $(BIN)/python
	$(PIP) --no-deps --target $@ rl_zoo3==2.9.2

# A user's installation, which every command of the documents works in, and a developer's; the stamp files make
# each of them happen once.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable ".[all]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/.installed

# What the tests marked nightly need.
$(VENV)/.installed-nightly: $(VENV)/.installed-dev
	$(INSTALL) --editable ".[nightly]"
	touch $@

## List the targets.
help:
	@awk '/^## /  { text = substr($$0, 4) } \
	      /^[a-z][a-z0-9-]*:/ && text { sub(":.*", ""); printf "make %-11s %s\n", $$0, text; text = "" }' \
	  $(firstword $(MAKEFILE_LIST))

## Train the default agent on CartPole-v1 until it is solved; ARGS="seed=1 ..." adds overrides.
train: $(VENV)/.installed
	$(BIN)/python -m dqn_runner $(ARGS)

## Run every check of CI: lint, docs-check, types, site, optuna4, daily. After a failure no other check begins.
check: $(TEST_SETUP) lint docs-check
	$(MAKE) --no-print-directory --jobs 2 types site optuna4 daily

## Format the code and fix what the linter can fix.
format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## Check the format and run the linter; changes nothing.
lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

## Run the type checker.
types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

## Run the tests of CI: all but those marked nightly.
daily: $(TEST_SETUP)
	$(PARALLEL) -m "not nightly" $(ARGS)

## Run all tests, also those marked nightly; ARGS="tests/replay -x" adds arguments of pytest.
test: $(TEST_SETUP) $(VENV)/.installed-nightly
	$(PARALLEL) $(ARGS)

## Run the tests that are not marked slow.
quick: $(TEST_SETUP)
	$(PARALLEL) -m "not slow" $(ARGS)

## Run the tests of studies again with the newest Optuna 4.
optuna4: $(TEST_SETUP)
	$(PIP) --upgrade --no-deps --target $(VENV)/optuna4 optuna==4.9.0
	PYTHONPATH=$(VENV)/optuna4 $(PYTEST) tests/sweep/test_study.py tests/sweep/test_runner.py

## Kill 200 runs at random moments, resume them, and compare the results; about 15 minutes.
soak: $(TEST_SETUP)
	$(BIN)/python -m tests.soak.runs $(ARGS)

## Kill a sweep at 15 random moments, resume it, and compare the results; about 5 minutes.
sweep-soak: $(TEST_SETUP)
	$(BIN)/python -m tests.soak.sweeps $(ARGS)

## Damage what runs and sweeps have stored, 10,000 times, and resume them; about an hour.
fuzz: $(TEST_SETUP)
	$(BIN)/python -m tests.soak.fuzz $(ARGS)

## Generate docs/reference.md from the source.
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/make_reference.py

## Write docs/results.md, its figure and README's summary from the results in benchmarks/results/runs.
results: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/results_page.py

## Check that docs/reference.md, docs/results.md and README's summary are up to date.
docs-check: $(VENV)/.installed-dev
	$(BIN)/python docs/make_reference.py --check
	$(BIN)/python benchmarks/results_page.py --check

## Build the documentation site in build/site; a broken link or any other warning is an error.
site: $(VENV)/.installed-dev
	$(BIN)/python docs/make_site.py

## Delete the virtual environment and the caches.
clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis
