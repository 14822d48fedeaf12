# Every target does its own set-up in .venv, once. A fresh machine needs Python 3.11 or newer and nothing else.
#   make demo   the main job on the embedded data        make check   formatting, lint and types
#   make test   check, then the tests                    make bench   the benchmarks (about an hour)
#   make clean  remove .venv and caches                  make test-all   the tests that take minutes too
# Another Python: make test PYTHON=python3.12        Tests in one process: make test PROCESSES=0

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A process for each core, with one thread, takes the next file of tests when it is through with one; up to four processes, as
# each takes up to 3 GB. When one dies, or one of its tests takes half an hour, the run ends and names the test: a process in its
# place would wait for ever.
PROCESSES ?= logical
SHARED := -n $(PROCESSES) --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
LIMITED := -o faulthandler_timeout=1800 -o faulthandler_exit_on_timeout=true
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(SHARED) $(LIMITED)

# $(call install,EXTRAS): the package with its tested versions, in place, so that edits take effect at once.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "'$(PYTHON)' is missing or older than \
Python 3.11, which Segwright needs; install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
@echo "Installing Segwright$(1) into $(VENV), some minutes the first time" >&2
@$(PYTHON) -m venv $(VENV)
@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.$(1)'
@touch $@
endef

.PHONY: help demo test test-all check bench clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# *//p' Makefile

$(VENV)/installed: pyproject.toml constraints.txt
	$(call install,[weights])

$(VENV)/installed-dev: pyproject.toml constraints.txt
	$(call install,[dev])

$(VENV)/installed-bench: pyproject.toml constraints.txt
	$(call install,[bench])

demo: $(VENV)/installed
	@$(BIN)/segwright demo

check: $(VENV)/installed-dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "format with: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary

test: check
	@$(PYTEST)

test-all: check
	@$(PYTEST) -m "slow or not slow"

bench: $(VENV)/installed-bench
	@set -e; for file in benchmarks/*.py; do echo "== $$file" >&2; $(BIN)/python $$file; done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
