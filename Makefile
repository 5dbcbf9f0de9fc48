# Each target first installs what it needs. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Processes that share the tests, each with its own PostgreSQL server; 0: one, for a debugger.
WORKERS ?=
SUPERSET := .superset/venv
BENCH := .bench/venv
SINGER := .bench/singer
DBT := .dbt/venv
LAKE := .lake/venv
SPARK := .spark/venv
SUPERSET_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))

.PHONY: demo dashboards run check test test-fast test-all test-browser test-dbt test-image \
	test-lake test-spark test-containers faults soak bench bench-stages bench-analytics \
	bench-dashboards bench-export bench-growth bench-search bench-alerts bench-tiny .chromium .java \
	docs dist lock clean
.DEFAULT_GOAL := help

define HELP
Try it
  make demo              load a simulated history and watch it grow
                         (ARGS=--exit ends it when the history is loaded;
                         ARGS='--export DIR' also exports it to Iceberg tables)
  make dashboards        show the demo's data, or DATABASE_URL's, in Superset
                         (ARGS=--payloads adds prompts and answers)
  make run               run a command: make run ARGS='sync --json'

Check a change
  make check             lint, types, import rules
  make test              the tests (4 minutes)
  make test-fast         the unit tests (half a minute)
  make test-all          the tests and their slow variants
  make test-browser      every dashboard in a browser (6 minutes)
  make test-dbt          the dbt package on a simulated history (1 minute)
  make test-lake         engines that read an exported lake, S3 (1 minute)
  make test-spark        Spark on an exported lake (2 minutes)
  make test-image        the steps of the Dockerfile, without Docker (2 minutes)
  make test-containers   docker-compose.yml in Docker (6 minutes)
  make faults            inject every fault, print the table (8 minutes)
  make soak              1,000 kills, a long run of the service (20 minutes)

Measure
  make bench             speed beside dlt, Singer and a script (30 minutes)
  make bench-stages      load beside COPY, fetch beside httpx (2 minutes)
  make bench-analytics   the usual questions on 10 million steps (20 minutes)
  make bench-dashboards  dashboards' queries on 10 million steps (12 minutes)
  make bench-export      export to a lake beside dlt (5 minutes)
  make bench-growth      time, memory and disk by size of history (10 minutes)
  make bench-search      search with and without its index (20 minutes)
  make bench-alerts      1,000 alert rules for 100 workflows (4 minutes)
  make bench-tiny        all benchmarks and the soak on tiny data (2 minutes)

Maintain
  make docs              write the references and schemas from the code
  make lock              upgrade the pinned dependencies
  make dist              build wheel and sdist, install and try them
  make clean             remove everything that make installed or built here
endef
export HELP

help:
	@echo "$$HELP"
.PHONY: help

demo: $(VENV)/running $(if $(findstring --export,$(ARGS)),$(VENV)/installed)
	@$(BIN)/orchestra-etl demo $(ARGS)

dashboards: $(VENV)/running $(SUPERSET)/installed
	@$(BIN)/python config/superset/serve.py $(ARGS)

run: $(VENV)/running
	@$(BIN)/orchestra-etl $(ARGS)

# Otherwise each process of the tests would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
PYTEST = $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),5) --dist worksteal

test: $(VENV)/installed
	$(PYTEST) -m "not slow" $(ARGS)

test-fast: $(VENV)/installed
	$(PYTEST) -m "not slow" tests/unit $(ARGS)

test-all: $(VENV)/installed
	$(PYTEST) $(ARGS)

# SCREENSHOTS=docs/images updates the screenshots of the README.
test-browser: $(VENV)/installed $(SUPERSET)/installed .chromium
	$(BIN)/python -m pytest tests/browser $(ARGS)

.chromium:
	@for name in $(CHROMIUM) chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes chromium >/dev/null; } || { \
		echo "there is no Chromium: install it (Debian: apt install chromium)," \
			"or name the program in CHROMIUM"; exit 1; }

# tests/faults/conftest.py distributes the faults over the processes.
faults: $(VENV)/installed
	$(BIN)/python -m pytest tests/faults --numprocesses $(or $(WORKERS),4) --dist loadscope \
		--no-loadscope-reorder $(ARGS)

soak: $(VENV)/installed
	$(BIN)/python -m tests.faults.soak $(ARGS)

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/installed $(BENCH)/installed $(SINGER)/installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-stages: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.load_stage $(ARGS)
	$(if $(filter --help,$(ARGS)),,$(BIN)/python -m tests.benchmarks.fetch)

bench-analytics: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.analytics $(ARGS)

bench-dashboards: $(VENV)/installed $(SUPERSET)/installed
	$(BIN)/python -m tests.benchmarks.charts $(ARGS)

bench-export: $(VENV)/installed $(BENCH)/installed
	$(BIN)/python -m tests.benchmarks.export $(ARGS)

bench-growth: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.growth $(ARGS)
	$(if $(filter --help,$(ARGS)),,$(BIN)/python -m tests.benchmarks.churn)

bench-search: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.search $(ARGS)

bench-alerts: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.alerts $(ARGS)

# The first test takes longest.
bench-tiny: $(VENV)/installed $(BENCH)/installed $(SINGER)/installed $(SUPERSET)/installed .chromium
	$(BIN)/python -m pytest tests/benchmarks --numprocesses $(or $(WORKERS),3) --dist worksteal $(ARGS)

docs: $(VENV)/installed
	@PYTHONPATH=. $(BIN)/python docs/reference.py

test-dbt: $(VENV)/installed $(DBT)/installed
	$(BIN)/python -m pytest tests/dbt $(ARGS)

test-lake: $(VENV)/installed $(LAKE)/installed
	$(BIN)/python -m pytest tests/lake $(ARGS)

test-spark: $(VENV)/installed $(SPARK)/installed .java
	$(BIN)/python -m pytest tests/spark $(ARGS)

.java:
	@{ command -v java && test -e /usr/share/java/postgresql.jar; } >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes --no-install-recommends \
			openjdk-17-jre-headless libpostgresql-jdbc-java >/dev/null; } || { \
		echo "there is no Java with PostgreSQL's driver: install them" \
			"(Debian: apt install openjdk-17-jre-headless libpostgresql-jdbc-java)"; exit 1; }

test-image: $(VENV)/installed
	$(BIN)/python -m pytest tests/image $(ARGS)

test-containers: $(VENV)/installed
	@docker compose version >/dev/null 2>&1 || { \
		echo "there is no Docker with its Compose plugin: install them first"; exit 1; }
	$(BIN)/python -m pytest tests/containers $(ARGS)

dist: $(VENV)/installed
	@tag=$$(git tag --points-at HEAD 2>/dev/null | grep '^v' | head -1); \
		version=$$($(BIN)/orchestra-etl --version | cut -d' ' -f2); \
		test -z "$$tag" -o "$$tag" = "v$$version" || { \
			echo "the tag $$tag is not the version $$version of pyproject.toml"; exit 1; }
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m pip check
	$(BIN)/python .ci/sbom.py \
		dist/orchestra_etl-$$($(BIN)/orchestra-etl --version | cut -d' ' -f2).cdx.json
	$(BIN)/python -m pytest tests/acceptance/test_wheel.py $(ARGS)
	@ls -l dist

# pip-compile writes names, versions and hashes, but no address of an index.
COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate

# pip-compile cannot read dependency groups; it reads requirements from standard input.
lock: $(VENV)/installed
	$(BIN)/dependency-groups dev | \
		$(COMPILE) --upgrade --all-extras --output-file requirements.lock pyproject.toml -
	$(BIN)/dependency-groups build | \
		$(COMPILE) --constraint requirements.lock --output-file requirements-build.lock -
	$(COMPILE) --constraint requirements.lock --output-file requirements-run.lock pyproject.toml
	for extra in export alerts; do \
		$(COMPILE) --constraint requirements.lock --extra $$extra \
			--output-file requirements-$$extra.lock pyproject.toml || exit; \
	done

# Environments. A stamp file marks a complete installation. The next call completes an installation
# that was interrupted, and updates one from an older lock file.

# uv takes a seventh of pip's CPU time, but reads no setting of pip, so the index that is set for pip
# is passed on to uv.
UV_INSTALL = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX-$${PIP_INDEX_URL-$$($(BIN)/python -m pip config \
	get global.index-url 2>/dev/null)}}" $(BIN)/python -m uv pip install --quiet
# Two parallel calls of make install one environment one after the other (if `flock` exists). The
# lock is on a file of the environment, so that different environments are installed in parallel.
ALONE = exec 9<$(1); ! command -v flock >/dev/null || flock 9;

# $(call INSTALL,FOLDER,PYTHON) OPTIONS: the uv of $(VENV) installs into another environment.
INSTALL = { $(1)/bin/python --version >/dev/null 2>&1 || \
	$(2) -m venv --clear --without-pip $(1); } && $(UV_INSTALL) --python $(1)/bin/python

$(VENV)/running: requirements-run.lock requirements-build.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "$(PYTHON) is not installed: install Python 3.11 or newer," \
			"or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than 3.11: install a newer one," \
			"or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv: install it (Debian: apt install python3-venv)," \
			"or say make PYTHON=..."; exit 1; }
	@echo "installing what the program needs into $(VENV) (180 MB, half a minute) ..."
# `pip --version` also fails if the Python behind the environment no longer exists. Only the program
# is compiled: most modules of the tools are never imported, and an import compiles the module.
	@$(call ALONE,requirements.lock) { $(BIN)/python -m pip --version >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV); } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
			--require-hashes -r requirements-build.lock && \
		$(UV_INSTALL) --python $(BIN)/python --compile-bytecode \
			--require-hashes -r requirements-run.lock && \
		$(UV_INSTALL) --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed: $(VENV)/running requirements.lock
	@echo "installing the tools of development into $(VENV) (450 MB more, one to two minutes) ..."
	@$(call ALONE,requirements.lock) $(UV_INSTALL) \
		--python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

# The environment of Superset, which needs Python 3.11.
$(SUPERSET)/installed: config/superset/requirements.lock | $(VENV)/running
	@$(SUPERSET_PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' \
		2>/dev/null || { \
		echo "Superset needs Python 3.11 with venv: install it," \
			"or say make $(MAKECMDGOALS) SUPERSET_PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing Superset into $(SUPERSET) (670 MB, one to three minutes; once) ..."
	@$(call ALONE,$<) $(call INSTALL,$(SUPERSET),$(SUPERSET_PYTHON)) --require-hashes -r $<
	@touch $@

# The environment of dlt, which benchmarks compare with.
$(BENCH)/installed: tests/benchmarks/dlt-requirements.lock | $(VENV)/running
	@echo "installing dlt into $(BENCH) ..."
	@$(call ALONE,$<) $(call INSTALL,$(BENCH),$(PYTHON)) --require-hashes -r $<
	@touch $@

# The environment of the Singer SDK and its target, which `make bench` compares with.
$(SINGER)/installed: tests/benchmarks/singer-requirements.lock | $(VENV)/running
	@echo "installing the Singer SDK and target-postgres into $(SINGER) (140 MB) ..."
	@$(call ALONE,$<) $(call INSTALL,$(SINGER),$(PYTHON)) --require-hashes -r $<
	@touch $@

# The environment of dbt, for the tests of the package. Its requirements.in says why the
# dependencies are not resolved.
$(DBT)/installed: tests/dbt/requirements.lock | $(VENV)/running
	@echo "installing dbt into $(DBT) (180 MB, half a minute) ..."
	@$(call ALONE,$<) $(call INSTALL,$(DBT),$(PYTHON)) --no-deps --require-hashes -r $<
	@touch $@

# The environment of the engines that read an exported lake, for their tests.
$(LAKE)/installed: tests/lake/requirements.lock | $(VENV)/running
	@echo "installing the readers of a lake into $(LAKE) (1.4 GB, one to two minutes) ..."
	@$(call ALONE,$<) $(call INSTALL,$(LAKE),$(PYTHON)) --require-hashes -r $<
	@touch $@

# The environment of Spark, for its test.
$(SPARK)/installed: tests/spark/requirements.lock | $(VENV)/running
	@echo "installing Spark into $(SPARK) (450 MB, one minute) ..."
	@$(call ALONE,$<) $(call INSTALL,$(SPARK),$(PYTHON)) --require-hashes -r $<
	@touch $@

clean:
	rm -rf $(VENV) .superset .bench .dbt .lake .spark build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
