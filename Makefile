# Everything a developer or a curious user needs; it makes its own virtual environment.
#   make demo [ARGS=--exit]   make test   make faults   make soak   make check   make run   make bench   make bench-analytics   make lock
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test faults soak check run bench bench-analytics lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    see it working on this machine (ARGS=--exit: end when the backlog is loaded)"
	@echo "make test    run the tests"
	@echo "make faults  inject every fault, print the table (8 minutes)"
	@echo "make soak    a thousand kills and a long run of the service (20 minutes)"
	@echo "make check   lint, types, import rules"
	@echo "make run     run the command, e.g. make run ARGS='sync --json'"
	@echo "make bench   run the benchmarks"
	@echo "make bench-analytics  time a dashboard's questions on 10 million steps (10 minutes)"
	@echo "make lock    renew requirements.lock"
.PHONY: help

demo: $(VENV)/installed
	@$(BIN)/orchestra-etl demo $(ARGS)

run: $(VENV)/installed
	@$(BIN)/orchestra-etl $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest $(ARGS)

faults: $(VENV)/installed
	$(BIN)/python -m pytest tests/faults $(ARGS)

soak: $(VENV)/installed
	$(BIN)/python -m tests.faults.soak

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.history $(ARGS)

bench-analytics: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.analytics $(ARGS)

# pip-compile writes names, versions and hashes; never the address of an index.
lock: $(VENV)/installed
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --extra dev --no-header \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements.lock pyproject.toml

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "$(PYTHON) is not installed: install Python 3.11 or newer, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than 3.11: install a newer one, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv: install it (Debian: apt install python3-venv), or say make PYTHON=..."; exit 1; }
# Also where an earlier attempt was cut off, or the Python behind it has gone.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
