# Every command a developer needs; `make help` lists them. Targets run one after the other, so
# the order of prerequisites is the order of work and the first failure stops it.
.NOTPARALLEL:
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Where bytecode is not kept, each of the hundreds of processes that the tests start compiles anew.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
VENV_312 ?= .venv312
# The first interpreter that really runs: a pyenv shim may be on the PATH and not start.
first_python = $(firstword $(foreach name,$(1),$(shell $(name) -c "print('$(name)')" 2>/dev/null)))
PYTHON ?= $(call first_python,python3.11 python3.12 python3)
PYTHON_312 ?= $(call first_python,python3.12 $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python3.12))

BIN := $(VENV)/bin
# Tests run in parallel; tests/conftest.py says which share a worker and which begin. Two workers more
# than there are processors, because many tests wait: a server alone takes 0.1 s to end.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
PYTEST = $(1)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
PIP_INSTALL = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# TensorRT-RTX builds engines without a GPU, on Linux and Windows: the tests build some (100 MB).
RTX ?= $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),tensorrt_rtx_cu13)
# The official checks of MCP servers and a browser for their pages, at the versions of the lock file;
# the wheel brings Node.
MCP_CHECKS := tests/mcp_server/node/node_modules/.package-lock.json
PROMTOOL ?= promtool
# A stamp is newer than what it was installed from, or the install runs again.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
DEV_312 := $(VENV_312)/.installed-dev
SOURCES := pyproject.toml constraints.txt
# tritonserver from a wheel, and the models' Python: its stub needs numpy 1.
TRITON_HOME ?= .venv-triton
TRITON := $(TRITON_HOME)/castmate.json
# WaveSpeed's own clients, as they are published, and the Node that runs some of them.
CLIENTS_HOME ?= .clients
CLIENTS := $(CLIENTS_HOME)/.installed
# The Python bindings of TensorRT alone, 2 wheels of 1.3 MB: they are for Linux, as the libraries are.
BINDINGS_HOME ?= .bindings
BINDINGS := $(if $(RTX),$(BINDINGS_HOME)/.installed)

DEMO_REFERENCE ?= castmate/bundles/toon/references/mira.png
DEMO_PROMPT ?= waving on the beach
DEMO_OUTPUT ?= out/demo.png

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: install
install: $(DEV) ## Make .venv with all that development needs, torch for the CPU included

.PHONY: demo
demo: $(RUNTIME) ## Draw a shipped character in a new scene; installs the runtime only, no torch
	$(BIN)/castmate generate --image $(DEMO_REFERENCE) --prompt "$(DEMO_PROMPT)" \
	  --size '512*512' --seed 7 --output $(DEMO_OUTPUT)

.PHONY: test
test: quick pytest ## All checks, as CI runs them: lint, imports, types, tests on 3.12, all tests

# Side by side: mypy keeps one processor busy, and the tests wait much of their time.
.PHONY: quick
quick: lint imports $(CLIENTS) $(MCP_CHECKS) ## All checks but the tests on 3.11: minutes
	@printf '%s\n' types test-312 | xargs -n 1 -P 2 $(MAKE) --no-print-directory

.PHONY: lint
lint: $(DEV) ## Check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(DEV) ## Fix style and formatting (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(DEV) ## Check types (mypy --strict)
	$(BIN)/mypy

.PHONY: imports
imports: $(DEV) ## Check who may import whom (import-linter)
	$(BIN)/lint-imports --no-logo

.PHONY: triton
triton: $(TRITON) ## Install tritonserver for the CPU into .venv-triton; the tests use it

.PHONY: clients
clients: $(CLIENTS) ## Install WaveSpeed's clients into .clients; the tests run them unchanged

.PHONY: bindings
bindings: $(BINDINGS) ## Install TensorRT's Python bindings into .bindings; the tests look names up

.PHONY: mcp-checks
mcp-checks: $(MCP_CHECKS) ## Install the official MCP checks and a browser; the tests run them

.PHONY: pytest
pytest: $(DEV) $(TRITON) $(CLIENTS) $(BINDINGS) $(MCP_CHECKS) ## Run every test that needs no GPU
	$(call PYTEST,$(VENV))

.PHONY: test-fast
test-fast: $(DEV) $(TRITON) $(CLIENTS) $(BINDINGS) $(MCP_CHECKS) ## Run the tests that are not marked slow
	$(call PYTEST,$(VENV)) -m "not gpu and not full_size and not comfyui and not fleet and not slow"

.PHONY: test-full-size
test-full-size: $(DEV) ## Export FLUX.1-dev with InstantCharacter, without its weights: minutes
	$(BIN)/python -m pytest -m full_size

.PHONY: test-312
test-312: ## Run each quick torch-free test once under Python 3.12, where it is, and say what is covered
ifeq ($(PYTHON_312),)
	@echo "test-312: skipped, no python3.12 here"
else
	@$(MAKE) --no-print-directory $(DEV_312) $(CLIENTS) $(MCP_CHECKS)
	COVERAGE_CORE=sysmon $(call PYTEST,$(VENV_312)) --cov --one-case -m "not gpu and not full_size and not comfyui and not fleet and not slow" tests/castmate tests/mcp_server tests/triton_models/test_model.py
endif

.PHONY: chaos
chaos: $(DEV) $(TRITON) $(MCP_CHECKS) ## Take a fleet through its faults: minutes; FLEET_PREDICTIONS=2000 for longer
	$(BIN)/python -m pytest -s -m fleet tests/fleet

.PHONY: alerts
alerts: $(DEV) ## Check and test the alert rules with promtool (Debian's package prometheus has it)
	@mkdir -p out
	$(BIN)/python -c "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin)['spec'], sys.stdout)" \
	  < deploy/kubernetes/overlays/fleet/alerts.yaml > out/alerts.yaml
	cp tests/deploy/alerts_test.yaml out
	$(PROMTOOL) check rules out/alerts.yaml
	$(PROMTOOL) test rules out/alerts_test.yaml

.PHONY: comfyui-check
comfyui-check: $(DEV) $(MCP_CHECKS) ## Drive a real ComfyUI, CASTMATE_COMFYUI=/path, with its page in a browser
	$(BIN)/python -m pytest -v -s -m comfyui tests/comfyui

.PHONY: crash
crash: $(DEV) ## Kill and freeze processes of a ledger for two minutes on each database
	CRASH_SECONDS=120 LEDGER_EXAMPLES=300 $(BIN)/python -m pytest -s \
	  tests/castmate/jobs/test_crash.py tests/castmate/jobs/test_model.py

.PHONY: soak
soak: $(DEV) $(TRITON) ## Send 500 requests to one tritonserver: memory, shared memory, files stay flat
	CASTMATE_SOAK_REQUESTS=500 $(BIN)/python -m pytest -s tests/triton_models/test_soak.py

.PHONY: bench
bench: $(DEV) $(TRITON) ## Measure speed, quality and load on a quiet CPU and report: half an hour
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.roofline
	$(BIN)/python -m benchmarks.report --plot docs/benchmarks.svg
	$(BIN)/python -m benchmarks.readme

.PHONY: gpu-check
gpu-check: $(DEV) ## On a machine with a GPU: all that it can tell in MINUTES=10, kept as it is measured
	$(BIN)/python -m benchmarks.gpu_check --minutes $(or $(MINUTES),10)

.PHONY: lock
lock: $(DEV) ## Write constraints.txt anew, from what is installed in .venv
	@grep '^#' constraints.txt > constraints.new
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.new
	@mv constraints.new constraints.txt

.PHONY: wheel
wheel: $(DEV) ## Build dist/castmate-*.whl
	$(BIN)/python -m build --wheel --no-isolation

.PHONY: mcpb
mcpb: $(DEV) ## Build dist/castmate.mcpb, which desktop hosts install with a click
	@mkdir -p dist
	cd packaging/mcpb && $(abspath $(BIN))/python -m zipfile -c ../../dist/castmate.mcpb manifest.json pyproject.toml server.py

.PHONY: clean
clean: ## Remove caches, the wheel and the demo's picture; keep the environments
	rm -rf dist out .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Castmate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Castmate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): $(SOURCES) | $(BIN)/python
	@echo "Installing Castmate into $(VENV)"
	@$(call PIP_INSTALL,$(VENV)) --editable .
	@touch $@

$(DEV): $(SOURCES) | $(BIN)/python
	@echo "Installing Castmate and its development tools, torch included, into $(VENV): minutes the first time"
	@$(call PIP_INSTALL,$(VENV)) --editable '.[dev,export]' $(RTX)
	@touch $(RUNTIME) $@

$(TRITON): $(SOURCES) castmate/__init__.py castmate/triton/environment.py | $(DEV)
	@echo "Installing tritonserver and its Python environment into $(TRITON_HOME)"
	@$(BIN)/python -m castmate.triton.environment $(TRITON_HOME) --constraints constraints.txt
	@touch $@

$(CLIENTS): $(wildcard tests/clients/*.txt tests/clients/*.json) | $(BIN)/python
	@echo "Installing WaveSpeed's clients into $(CLIENTS_HOME)"
	@$(BIN)/python -m venv $(CLIENTS_HOME)/python
	@$(call PIP_INSTALL,$(CLIENTS_HOME)/python) --requirement tests/clients/requirements.txt
	@$(call PIP_INSTALL,$(CLIENTS_HOME)/python) --no-deps --upgrade --target $(CLIENTS_HOME)/python-old \
	  --requirement tests/clients/requirements-old.txt
	@cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS_HOME)
	@PATH="$(abspath $(CLIENTS_HOME)/python/bin):$$PATH" npm ci --prefix $(CLIENTS_HOME) --no-audit --no-fund --silent
	@touch $@

$(BINDINGS_HOME)/.installed: $(wildcard tests/bindings/*.txt) | $(BIN)/python
	@echo "Installing TensorRT's Python bindings into $(BINDINGS_HOME)"
	@for major in 10 11; do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	    --target $(BINDINGS_HOME)/$$major --requirement tests/bindings/requirements-$$major.txt || exit 1; \
	done
	@touch $@

$(MCP_CHECKS): tests/mcp_server/node/package-lock.json | $(DEV)
	@echo "Installing the official MCP checks and a browser"
	@PATH="$(abspath $(BIN)):$$PATH" npm ci --prefix $(dir $<) --no-audit --no-fund --loglevel=error
	@touch $@

$(DEV_312): $(SOURCES)
	$(PYTHON_312) -m venv $(VENV_312)
	@echo "Installing Castmate without torch into $(VENV_312)"
	@$(call PIP_INSTALL,$(VENV_312)) --editable '.[dev]'
	@touch $@
