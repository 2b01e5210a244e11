# Everything runs in .venv, which the targets make and keep up to date by themselves.
#
#   PYTHON           the interpreter that makes .venv (Python 3.11 or newer)
#   TORCH_INDEX_URL  the package index that torch comes from; empty: pip's own configuration
#   UPGRADE          with `make lock`: not empty chooses the newest versions
#   PYTEST_ARGS      more arguments for pytest, e.g. PYTEST_ARGS="-k gate -x"
#   PYTEST_WORKERS   processes that share the tests: auto (one a core) or a number; 0 runs them in this one

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

CANDIDATES := python3.11 python3 python3.12 python3.13
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$p"; break; fi; done)
TORCH_INDEX_URL ?=
UPGRADE ?=
PYTEST_ARGS ?=
PYTEST_WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
TOOLS := .venv-deployments
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Locks name every package, so nothing is resolved and nothing unhashed can slip in; torch comes after them.
INSTALL_LOCK := $(PIP) install -qq --no-deps --require-hashes -r
INSTALL_TORCH := $(PIP) install $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) -r requirements/torch.txt
INSTALL_CERT := $(PIP) install -qq --no-deps --no-build-isolation -e .

.PHONY: help
help:  ## List the targets
	@echo "Usage: make TARGET"; echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do \
		printf '  %-18s %s\n' "$$name" "$$text"; done

# --- setting up ---------------------------------------------------------------------------------

$(STAMPS)/venv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer found (looked for: $(CANDIDATES))." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is not there, or is not Python 3.11 or newer." >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/demo: requirements/demo.lock requirements/torch.txt pyproject.toml src/cert/_version.py | $(STAMPS)/venv
	@echo "Installing what the demo needs (torch is the large one; a few minutes the first time)"
	@$(INSTALL_LOCK) requirements/demo.lock
	@$(INSTALL_TORCH)
	@$(INSTALL_CERT)
	@touch $@

$(STAMPS)/dev: requirements/dev.lock requirements/torch.txt pyproject.toml src/cert/_version.py | $(STAMPS)/venv
	@echo "Installing what the tests need (torch is the large one; a few minutes the first time)"
	@$(INSTALL_LOCK) requirements/dev.lock
	@$(INSTALL_TORCH)
	@$(INSTALL_CERT)
	@$(PIP) check
	@touch $@

$(TOOLS)/.stamp: requirements/deployments.lock | $(STAMPS)/venv
	@echo "Installing the tools that deploy (Helm's engine is the large one)"
	@[ -x $(TOOLS)/bin/python ] || $(BIN)/python -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check install -qq --no-deps --require-hashes -r $<
	@touch $@

# --- using --------------------------------------------------------------------------------------

.PHONY: demo
demo: $(STAMPS)/demo  ## Watch the reference model answer, and write an HTML report
	@$(BIN)/cert demo

.PHONY: benchmark
benchmark: $(STAMPS)/dev  ## Measure what watching costs, and what the resilience stack around a call does
	@$(BIN)/python benchmarks/overhead.py
	@$(BIN)/python benchmarks/core.py

.PHONY: wheel
wheel: $(STAMPS)/dev  ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

# --- checking -----------------------------------------------------------------------------------

.PHONY: test
test: lint types  ## Formatting, lint, layers, strict types and every test that pip alone can supply
	$(BIN)/python -m pytest -m "not system and not deployments and not network" -n $(PYTEST_WORKERS) --dist worksteal \
		--durations=10 --durations-min=2 $(PYTEST_ARGS)

.PHONY: test-system
test-system: $(STAMPS)/dev  ## Install Debian packages and run the tests that need them
	@bash scripts/debian_packages.sh requirements/debian.txt
	@status=0; CERT_REQUIRE_SYSTEM=1 $(BIN)/python -m pytest -m system $(PYTEST_ARGS) || status=$$?; \
		if [ $$status -eq 5 ]; then echo "No test is marked 'system' (or none matches PYTEST_ARGS)."; status=0; fi; \
		exit $$status

.PHONY: verify-deployments
verify-deployments: $(STAMPS)/dev $(TOOLS)/.stamp  ## Build, run and check everything in deployments/ with the real tools
	@bash scripts/debian_packages.sh requirements/debian-deployments.txt
	@bash scripts/deployments/trixie_tools.sh
	@bash scripts/deployments/build_images.sh
	$(BIN)/python -m pytest -m deployments --durations=10 --durations-min=5 $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMPS)/dev  ## Check formatting, lint and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYTHONPATH=src $(BIN)/lint-imports --no-logo

.PHONY: types
types: $(STAMPS)/dev  ## Check the types strictly
	$(BIN)/mypy

.PHONY: coverage
coverage: $(STAMPS)/dev  ## Run the tests of `make test` and show the lines they miss
	$(BIN)/python -m pytest -m "not system and not deployments and not network" --cov --cov-report=term-missing $(PYTEST_ARGS)

.PHONY: format
format: $(STAMPS)/dev  ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# --- maintaining --------------------------------------------------------------------------------

.PHONY: lock
lock: $(STAMPS)/venv  ## Write the lock files from pyproject's ranges (UPGRADE=1: choose the newest versions)
	$(BIN)/python scripts/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean:  ## Remove .venv, builds and caches
	rm -rf $(VENV) $(TOOLS) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
