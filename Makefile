# Iconoscope: `make demo` and `make test` do all their own set-up. They need Python 3.11 or 3.12 and make, nothing else.

PORT ?= 7860
HOST ?= 127.0.0.1
VENV ?= .venv
# The first of these that is new enough; `make PYTHON=/path/to/python3.12 demo` overrides it.
NEW_ENOUGH := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p $(NEW_ENOUGH) && { echo $$p; exit; }; done; echo python3)

BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready

FAST := not slow and not browser and not gpu and not network
SLOW := slow and not browser and not gpu and not network
BROWSER := browser and not gpu and not network
# Two at a time, each with its output in one piece: a browser waits more than it computes.
TOGETHER = $(MAKE) --no-print-directory --jobs=2 --output-sync=target

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types fast slow browser format lock clean setup

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Set up once, then serve the shipped atlas (PORT=7860 HOST=127.0.0.1)
	@$(BIN)/iconoscope demo --port $(PORT) --host $(HOST)

test: $(READY) ## Set up once, then lint, types and every test that needs no GPU and no network
	@$(MAKE) --no-print-directory lint
	@$(TOGETHER) types fast
	@$(TOGETHER) slow browser

check: $(READY) ## Lint, types and the fast tests
	@$(MAKE) --no-print-directory lint
	@$(TOGETHER) types fast

lint: $(READY) ## Ruff: rules and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Pyright
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

fast: $(READY) ## The fast tests
	@$(BIN)/python -m pytest -q -m "$(FAST)"

slow: $(READY) ## The slow tests
	@$(BIN)/python -m pytest -q -m "$(SLOW)" --durations=10

browser: $(READY) ## The tests in Chromium
	@$(BIN)/python -m pytest -q -m "$(BROWSER)" --durations=10

format: $(READY) ## Let ruff mend formatting and imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup: $(READY) ## Only the set-up

# Keeps the pins it finds; to move them: make lock LOCK_FLAGS=--upgrade
lock: $(READY) ## Rewrite requirements.lock from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-emit-package antlr4-python3-runtime --no-emit-package iopath \
		$(LOCK_FLAGS) pyproject.toml --extra test -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-deps $(LOCK_FLAGS) requirements-source.in -o requirements-source.lock

clean: ## Remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(LOCKED): requirements.lock requirements-source.lock
	@$(PYTHON) $(NEW_ENOUGH) || { \
		echo "Iconoscope needs Python 3.11 or 3.12; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
		echo "Install one of them, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "Could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked packages into $(VENV) (about 6 GB, a few minutes on the first run)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--only-binary :all: -r requirements.lock
	@SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--no-build-isolation -r requirements-source.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@
