# Everything a developer or a curious user needs; it makes its own virtual environment.
#   make demo [ARGS=--exit]   make dashboards   make test   make test-fast   make test-all   make test-browser   make faults   make soak   make check   make run   make bench   make bench-stages   make bench-analytics   make bench-dashboards   make bench-growth   make docs   make test-image   make test-containers   make dist   make lock
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Processes that share the tests, each with a PostgreSQL server of its own; 0: one, for a debugger.
WORKERS ?= 3
SUPERSET := .superset/venv
BENCH := .bench/venv
SUPERSET_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))

.PHONY: demo dashboards test test-fast test-all test-browser faults soak check run bench bench-stages bench-analytics bench-dashboards bench-growth docs test-image test-containers dist lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    see it working on this machine (ARGS=--exit: end when the backlog is loaded)"
	@echo "make dashboards    serve the dashboards of the demo's database, or of the one that DATABASE_URL names"
	@echo "make test    run the tests (4 minutes)"
	@echo "make test-fast   run the unit tests (a minute)"
	@echo "make test-all    run the tests and their slow variants"
	@echo "make test-browser  look at every dashboard in a browser (6 minutes)"
	@echo "make faults  inject every fault, print the table (8 minutes)"
	@echo "make soak    a thousand kills and a long run of the service (20 minutes)"
	@echo "make check   lint, types, import rules"
	@echo "make run     run the command, e.g. make run ARGS='sync --json'"
	@echo "make bench   time this project beside dlt and a hand-written script (40 minutes)"
	@echo "make bench-stages  time the load beside COPY, and the fetch beside plain httpx (2 minutes)"
	@echo "make bench-analytics  time a dashboard's questions on 10 million steps, and the indexes they need (20 minutes)"
	@echo "make bench-dashboards  time every query behind the dashboards on 10 million steps (12 minutes, with a browser)"
	@echo "make bench-growth  time, memory and room over the size of the history (10 minutes)"
	@echo "make docs    renew docs/reference/configuration.md and docs/reference/schema.md from the code"
	@echo "make bench-tiny  run every benchmark and the soak once, on almost nothing (2 minutes)"
	@echo "make docs    renew docs/configuration.md and docs/schema.md from the code"
	@echo "make test-image  follow the steps of the Dockerfile on this machine (2 minutes)"
	@echo "make test-containers  start docker-compose.yml in Docker, scale it, stop it, open its dashboards (6 minutes)"
	@echo "make dist    build the wheel, the source distribution and the bill of materials; install and try them"
	@echo "make lock    renew requirements.lock and requirements-run.lock"
.PHONY: help

demo: $(VENV)/installed
	@$(BIN)/orchestra-etl demo $(ARGS)

dashboards: $(VENV)/installed $(SUPERSET)/installed
	@$(BIN)/python config/superset/serve.py $(ARGS)

run: $(VENV)/installed
	@$(BIN)/orchestra-etl $(ARGS)

PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test: $(VENV)/installed
	$(PYTEST) -m "not slow" $(ARGS)

test-fast: $(VENV)/installed
	$(PYTEST) -m "not slow" tests/unit $(ARGS)

test-all: $(VENV)/installed
	$(PYTEST) $(ARGS)

# SCREENSHOTS=docs/images renews the README's.
test-browser: $(VENV)/installed $(SUPERSET)/installed chromium
	$(BIN)/python -m pytest tests/browser $(ARGS)

chromium:
	@for name in $(CHROMIUM) chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes chromium >/dev/null; } || { \
		echo "there is no Chromium: install it (Debian: apt install chromium), or name the program in CHROMIUM"; exit 1; }

# By file, each of which has a server of its own; the longest first.
faults: $(VENV)/installed
	$(BIN)/python -m pytest tests/faults --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(VENV)/installed
	$(BIN)/python -m tests.faults.soak $(ARGS)

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/installed $(BENCH)/installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-stages: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.load_stage $(ARGS)
	$(BIN)/python -m tests.benchmarks.fetch

bench-analytics: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.analytics $(ARGS)

bench-dashboards: $(VENV)/installed $(SUPERSET)/installed
	$(BIN)/python -m tests.benchmarks.charts $(ARGS)

bench-growth: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.growth $(ARGS)
	$(BIN)/python -m tests.benchmarks.churn

# The first test takes longest.
bench-tiny: $(VENV)/installed $(BENCH)/installed $(SUPERSET)/installed chromium
	$(BIN)/python -m pytest tests/benchmarks --numprocesses $(WORKERS) --dist worksteal $(ARGS)

docs: $(VENV)/installed
	@PYTHONPATH=. $(BIN)/python docs/reference.py

test-image: $(VENV)/installed
	$(BIN)/python -m pytest tests/image $(ARGS)

test-containers: $(VENV)/installed
	@docker compose version >/dev/null 2>&1 || { echo "there is no Docker with its Compose plugin: install them first"; exit 1; }
	$(BIN)/python -m pytest tests/containers $(ARGS)

dist: $(VENV)/installed
	@tag=$$(git tag --points-at HEAD 2>/dev/null | grep '^v' | head -1); version=$$($(BIN)/orchestra-etl --version | cut -d' ' -f2); \
		test -z "$$tag" -o "$$tag" = "v$$version" || { echo "the tag $$tag is not the version $$version of pyproject.toml"; exit 1; }
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m pip check
	$(BIN)/python .ci/sbom.py dist/orchestra_etl-$$($(BIN)/orchestra-etl --version | cut -d' ' -f2).cdx.json
	$(BIN)/python -m pytest tests/acceptance/test_wheel.py $(ARGS)
	@ls -l dist

# pip-compile writes names, versions and hashes; never the address of an index.
lock: $(VENV)/installed
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --extra dev --no-header \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --constraint requirements.lock \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements-run.lock pyproject.toml

# Superset's own: only for Python 3.11, whatever the project's is.
$(SUPERSET)/installed: config/superset/requirements.lock
	@$(SUPERSET_PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "Superset needs Python 3.11 with venv: install it, or say make $(MAKECMDGOALS) SUPERSET_PYTHON=/path/to/python3.11"; exit 1; }
	@$(SUPERSET)/bin/python -m pip --version >/dev/null 2>&1 || $(SUPERSET_PYTHON) -m venv --clear $(SUPERSET)
	@echo "installing Superset into $(SUPERSET) (a minute, 800 MB) ..."
	@$(SUPERSET)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# dlt, only to be compared with.
$(BENCH)/installed: tests/benchmarks/dlt-requirements.lock
	@$(BENCH)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(BENCH)
	@echo "installing dlt into $(BENCH) ..."
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

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
	rm -rf $(VENV) .superset .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
