# Two commands do it all: `make run` and `make test`. Both set up what they need from the lock files.

VENV   ?= .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
JOBS   ?= 3
SLOW_JOBS ?= 3
UP     ?=
unexport PYTHONDONTWRITEBYTECODE # thousands of processes are started in the tests: each would compile everything again

RUN_READY  := $(VENV)/.ready
DEV_READY  := $(VENV)/.ready-dev
LOCK_TOOLS := $(VENV)-lock
LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help run test test-quick test-slow coverage lint bench lock clean

##@ Use
run: $(RUN_READY) ## set up and start everything: Prefect, runner, sandbox, candles (UP=--once does the job and ends)
	@$(BIN)/candlelake up $(UP)

help: ## this page
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Develop
test: $(DEV_READY) ## set up and run all tests: everyday ones side by side, then the slow ones
	@status=0; \
	$(MAKE) --no-print-directory test-quick || status=1; \
	$(MAKE) --no-print-directory test-slow || status=1; \
	exit $$status

test-quick: $(DEV_READY) ## the everyday tests
	@echo "everyday tests, $(JOBS) at a time"
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow"

test-slow: $(DEV_READY) ## the tests that start servers or take minutes
	@echo "slow tests, $(SLOW_JOBS) files at a time"
	@$(BIN)/python -m pytest -q -n $(SLOW_JOBS) --dist loadfile --no-loadscope-reorder --durations=10 -m slow

coverage: $(DEV_READY) ## the everyday tests with branch coverage of storage, vault, connections and providers: 90 % at least
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow" --cov=storage --cov=connections --cov=providers --cov-branch \
		--cov-report=term:skip-covered --cov-fail-under=90

lint: $(DEV_READY) ## ruff, mypy, floors, docstrings of tests
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/lint-imports || status=1; \
	$(BIN)/interrogate -q tests || status=1; \
	exit $$status

bench: $(DEV_READY) ## benchmarks against the peers, as ratios
	@$(BIN)/python -m benchmarks

##@ Maintain
lock: ## write the lock files anew, those of the benchmarks' peers too, keeping the versions in them; UPGRADE=--upgrade moves them
	@test -x $(LOCK_TOOLS)/bin/uv || { $(PYTHON) -m venv $(LOCK_TOOLS) && $(LOCK_TOOLS)/bin/pip install --quiet uv; }
	@$(LOCK_TOOLS)/bin/uv pip compile pyproject.toml --group build $(LOCK_FLAGS) $(UPGRADE) -o requirements.lock
	@$(LOCK_TOOLS)/bin/uv pip compile pyproject.toml --group build --group dev $(LOCK_FLAGS) $(UPGRADE) \
		-c requirements.lock -o requirements-dev.lock
	@for peer in arcticdb,polars:arctic freqtrade:freqtrade cryptofeed:cryptofeed vectorbt,backtesting,ta-lib:backtests; do \
		echo "$${peer%%:*}" | tr , '\n' | $(LOCK_TOOLS)/bin/uv pip compile - $(LOCK_FLAGS) $(UPGRADE) -o requirements-bench-$${peer##*:}.lock || exit 1; \
	done

clean: ## remove the virtual environments; state in .candlelake/ stays
	@rm -rf $(VENV) $(LOCK_TOOLS)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python found; install Python 3.11 or newer, or give PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old; install Python 3.11 or newer, or give PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(RUN_READY): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing the locked dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_READY): requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "installing the locked dependencies and the tools for development"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(RUN_READY)
