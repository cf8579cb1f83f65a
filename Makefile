# Everything a developer or CI runs, one recipe per CI job. `make run` and `make test` set up what they need.
# Nothing global is installed but PostgreSQL's server programs, and those only where they are missing (postgres below).

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
# Which Python is in the stamp's name, so that `make PYTHON=python3.13 test` makes the venv anew.
STAMP   := $(VENV)/.installed-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
WORKERS ?= 2
TESTS   ?=
BUILD   := build

export PYTHONHASHSEED ?= random
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------------------------------------------------- set-up

.PHONY: setup
setup: $(STAMP) ## Make .venv from the lock, with the library in it (done by every target that needs it)

# Locked by hash, and built without a second download: hatchling is in the lock too.
$(STAMP): requirements/dev.txt pyproject.toml
	@scripts/make_venv.sh '$(PYTHON)' '$(VENV)'
	@touch $@

.PHONY: postgres
postgres: ## Install PostgreSQL's server programs where they are missing (system packages)
	@scripts/system_packages.sh

# ------------------------------------------------------------------------------------------------------------- use

.PHONY: run
run: $(STAMP) ## Fill a folder with the demo and serve it on loopback (Ctrl-C stops it)
	@$(BIN)/fourfold demo --serve

# ----------------------------------------------------------------------------------------------------------- tests

.PHONY: test
test: $(STAMP) postgres ## Run all tests with coverage (TESTS="tests/unit -k word" narrows, WORKERS=0 runs in one process)
	@mkdir -p $(BUILD)/coverage
	@rm -f $(BUILD)/coverage/*
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term --cov-report=json \
		$(if $(TESTS),--cov-fail-under=0 $(TESTS))

.PHONY: quick
quick: $(STAMP) ## Run the tests that need no server and less than five seconds each, without coverage
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not postgres and not slow and not kill' $(TESTS)

.PHONY: coverage
coverage: $(STAMP) ## Demand that all lines and branches of the core ran (after make test)
	@$(BIN)/python scripts/check_coverage.py $(BUILD)/coverage/coverage.json

.PHONY: model
model: $(STAMP) ## Search the relay's protocol exhaustively, with and without each of its safeguards
	@$(BIN)/python docs/model/relay_model.py --suite

.PHONY: soak
soak: $(STAMP) postgres ## Random writes, crashes and outages for long; all stores must agree in the end
	@$(BIN)/python -m tests.soak

.PHONY: bench
bench: $(STAMP) ## Measure on this machine
	@$(BIN)/python -m benchmarks

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel, install it in an empty venv elsewhere, run init and demo there
	@scripts/check_wheel.sh '$(PYTHON)' '$(BIN)'

# ---------------------------------------------------------------------------------------------------------- checks

.PHONY: check
check: format-check lint types imports test coverage model ## Everything but the wheel

.PHONY: format
format: $(STAMP) ## Format, and fix what ruff can fix safely
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: format-check
format-check: $(STAMP) ## Fail on what isn't formatted
	@$(BIN)/ruff format --check .

.PHONY: lint
lint: $(STAMP) ## ruff, nearly all rules
	@$(BIN)/ruff check .

.PHONY: types
types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy

.PHONY: imports
imports: $(STAMP) ## Imports go one way (contracts in pyproject.toml)
	@$(BIN)/lint-imports

# -------------------------------------------------------------------------------------------------------- upkeep

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header

# The lock names versions and hashes, no registry: it installs from any index. UPGRADE=1 takes newer versions.
.PHONY: lock
lock: $(STAMP) ## Write requirements/*.txt again from pyproject.toml (UPGRADE=1: newest versions)
	@$(LOCK) $(if $(UPGRADE),--upgrade) --all-extras --group dev -o requirements/dev.txt pyproject.toml
	@$(LOCK) $(if $(UPGRADE),--upgrade) -o requirements/samples.txt requirements/samples.in
	@! grep -nE '^(-|.*(https?|file)://)' requirements/*.txt || { echo 'a lock names an address' >&2; exit 1; }

.PHONY: samples
samples: ## Synthesize the sample recordings again (a temporary venv with ffmpeg)
	@scripts/make_samples.sh '$(PYTHON)'

.PHONY: clean
clean: ## Remove what tests and builds left
	@rm -rf $(BUILD) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find src tests scripts benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean ## Remove the venv, too
	@rm -rf $(VENV)
