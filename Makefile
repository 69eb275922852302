# Everything that one does with this repository, one word each; `make help` lists them.
#
# Needs GNU make and a Python >= 3.10 with its venv module, nothing else: each target makes .venv and installs into it what
# it needs. A stamp file for each set of packages keeps the second run quick; a changed pyproject.toml installs again.

# Which Python: the first of these that is new enough and can make a virtual environment. Or say it: make test PYTHON=python3.12
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python python3.13 python3.12 python3.11 python3.10)
VENV ?= .venv
# More arguments for the program that a target runs: make test ARGS="-k fork", make demo ARGS=--help
ARGS ?=
# How often a test that failed is run again. Many wait for threads and signals, and a machine that is busy with something
# else may stand still for longer than they are patient. What passed only then is named in the summary (RERUN).
RERUNS ?= 2
# How many tests run at a time: most wait for something. make test WORKERS=0 runs them one after the other, in one process.
WORKERS ?= 2
PYTEST_OPTIONS = --reruns=$(RERUNS) --numprocesses=$(WORKERS) --dist=loadfile

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
# -qq: pip says nothing but errors.
INSTALL := $(PIP) install -qq --upgrade-strategy only-if-needed
# Made for the Python that was asked for by name: asking for another one makes .venv anew.
MADE := $(VENV)/.made$(if $(PYTHON),-$(subst /,_,$(PYTHON)))

# A virtual environment knows its own path: one that was moved or copied is made anew.
ifneq ($(shell cat $(VENV)/.made 2>/dev/null),$(CURDIR))
.PHONY: $(MADE)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check lint format types imports docstrings doctests coverage docs tutorial pictures bench wheel clean
.DELETE_ON_ERROR:

help: ## Say what there is
	@echo "make TARGET [PYTHON=python3.12] [ARGS=...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  %-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.demo ## Run the demonstration: a Django site whose slow requests explain themselves
	@$(VENV)/bin/otel-introspect demo $(ARGS)

test: $(VENV)/.test ## Run the tests on one Python
	@$(PY) -m pytest $(PYTEST_OPTIONS) $(ARGS)

test-all: $(VENV)/.made-with-pip ## Run the tests on every Python found, with the oldest and the newest dependencies
	@$(PY) tools/test_all.py $(PYTEST_OPTIONS) $(ARGS)

check: lint types imports docstrings doctests test ## All that must be green before a commit

lint: $(VENV)/.lint ## Ruff: the rules and the format
	@echo "==> ruff"
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

format: $(VENV)/.lint ## Let ruff mend what it can
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

types: $(VENV)/.test $(VENV)/.lint ## Mypy, strict
	@echo "==> mypy"
	@$(PY) -m mypy otel_introspect tools $(sort $(dir $(wildcard tests/typing/*.py)))

imports: $(VENV)/.test $(VENV)/.lint ## The import contracts: which part may know of which
	@echo "==> import contracts"
	@$(VENV)/bin/lint-imports --no-logo

docstrings: $(VENV)/.lint ## Every test says in a sentence what it promises
	@echo "==> docstrings of the tests"
	@$(VENV)/bin/interrogate tests

# Apart from the tests, whose files pytest would import as modules too. The demo can't be imported without its settings.
doctests: $(VENV)/.test ## The examples in the docstrings of the package
	@echo "==> doctests"
	@$(PY) -m pytest -q --doctest-modules --ignore=otel_introspect/demo otel_introspect

coverage: $(VENV)/.test ## Run the tests and report the lines and branches that none of them ran
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest $(ARGS)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

# Warnings are errors, a dead link among them; nothing is fetched, so it builds without a network.
docs: $(VENV)/.docs ## Build the documentation into docs/_build/html
	@echo "==> documentation"
	@$(PY) -m sphinx -q -W -n --keep-going -b html docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

tutorial: $(VENV)/.demo ## Do what the tutorial says, line by line, in an empty folder
	@$(PY) tools/run_tutorial.py $(ARGS)

pictures: $(VENV)/.test ## Make the pictures of the documentation anew, of real output
	@$(PY) tools/make_pictures.py $(ARGS)

bench: $(VENV)/.bench ## Measure what it costs, beside other tools
	@$(PY) -m benchmarks $(ARGS)

wheel: $(VENV)/.build ## Build the wheel and try it in a clean environment with only opentelemetry-distro
	@$(PY) tools/check_wheel.py $(ARGS)

clean: ## Remove everything that these targets made
	rm -rf .venv .venv-* build dist docs/_build .nox .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage* demo-traces.jsonl
	find otel_introspect tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@chosen=; without_venv=; \
	for each in $(CANDIDATES); do \
		"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || continue; \
		if "$$each" -c 'import venv, ensurepip' >/dev/null 2>&1; then chosen=$$each; break; fi; \
		without_venv="$${without_venv:-$$each}"; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$$without_venv" ]; then \
		echo "$$without_venv cannot make a virtual environment: its venv or ensurepip module is missing." >&2; \
		echo "On Debian or Ubuntu: apt-get install python3-venv. Or name another Python: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	if [ -z "$$chosen" ]; then \
		echo "No Python 3.10 or newer found (tried: $(CANDIDATES))." >&2; \
		echo "Install one, or say where it is: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "==> making $(VENV) with $$chosen ($$("$$chosen" -c 'import platform; print(platform.python_version())'))"; \
	"$$chosen" -m venv --clear $(VENV)
	@printf '%s' '$(CURDIR)' > $(VENV)/.made
	@test -e $@ || touch $@

# Dependency groups are known to pip from 25.1 on; the pip that comes with Python 3.10 to 3.13 is older.
$(VENV)/.made-with-pip: $(MADE)
	@$(PIP) install -qq --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.made-with-pip pyproject.toml
	@echo "==> installing otel-introspect and what the demonstration needs into $(VENV)"
	@$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.made-with-pip pyproject.toml
	@echo "==> installing otel-introspect and what the tests need into $(VENV)"
	@$(INSTALL) -e '.[demo]' --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.made-with-pip pyproject.toml
	@echo "==> installing the linters into $(VENV)"
	@$(INSTALL) --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.made-with-pip pyproject.toml
	@echo "==> installing otel-introspect and what builds the documentation into $(VENV)"
	@$(INSTALL) -e '.[demo]' --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.made-with-pip pyproject.toml
	@echo "==> installing otel-introspect and what the benchmarks need into $(VENV)"
	@$(INSTALL) -e '.[demo]' --group bench
	@touch $@

$(VENV)/.build: $(VENV)/.made-with-pip pyproject.toml
	@echo "==> installing what builds the wheel into $(VENV)"
	@$(INSTALL) --group build
	@touch $@
