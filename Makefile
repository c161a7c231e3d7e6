# `make run` and `make test` need make and Python 3.11 to 3.13, nothing else: both set up what they use.
# Arguments are passed on: make run ARGS="--recipients 50", make test ARGS="-k rounds".

VENV ?= .venv
PYTHON ?=
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test quick lint types direction format lock bench kills clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed-run ## See a broadcast go out on simulated platforms (clarion demo)
	@$(BIN)/clarion demo $(ARGS)

test: $(VENV)/.installed-dev ## Lint, types, import direction and tests
	@$(BIN)/python scripts/check.py $(ARGS)

quick: $(VENV)/.installed-dev ## Tests alone, without the slow ones
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(VENV)/.installed-dev ## Lint alone
	@$(BIN)/python scripts/check.py --only lint

types: $(VENV)/.installed-dev ## Type check alone
	@$(BIN)/python scripts/check.py --only types

direction: $(VENV)/.installed-dev ## Check of import direction alone
	@$(BIN)/python scripts/check.py --only direction

format: $(VENV)/.installed-dev ## Format the code and mend what lint can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Measure speed
	@$(BIN)/python -m bench $(ARGS)

kills: $(VENV)/.installed-dev ## Kill processes at random moments of broadcasts: is anything lost? (11 minutes)
	@$(BIN)/python -m tests.kills $(ARGS)

install: $(VENV)/.installed-run ## Set up to run Clarion
install-dev: $(VENV)/.installed-dev ## Set up to work on Clarion

# A lock holds for every supported Python on Linux and macOS, and pins the build backend too.
UV_COMPILE = $(BIN)/uv pip compile --quiet --python $(BIN)/python --no-python-downloads \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" pyproject.toml

lock: $(VENV)/.installed-dev ## Write both lock files anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.8,<1"
	@$(UV_COMPILE) $(ARGS) --group build --output-file requirements.lock
	@$(UV_COMPILE) $(ARGS) --group dev --constraint requirements.lock --output-file requirements-dev.lock

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The developers' lock holds the runtime one, so either stamp leaves a working `clarion`.
$(VENV)/.installed-run: requirements.lock pyproject.toml scripts/setup
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh scripts/setup requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml scripts/setup
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh scripts/setup requirements-dev.lock
	@touch $@ $(VENV)/.installed-run
