# Everything is installed below this folder: the environment in .venv, downloads in .cache.
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := $(ROOT)/.venv
export UV_CACHE_DIR ?= $(ROOT)/.cache/uv
export UV_PYTHON_DOWNLOADS := never
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Many processes are started here: none should have to compile everything anew.
unexport PYTHONDONTWRITEBYTECODE
# Processes that run tests side by side; 0 is this one alone.
WORKERS ?= 2
INSTALL := $(VENV)/bin/uv pip install --quiet --python $(VENV) --require-hashes --no-deps --no-build-isolation
PROJECT := $(VENV)/bin/uv pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable $(ROOT)

# Airflow's own port, where 8080 will not do.
PORT ?=

.PHONY: help demo airflow airflow-cluster airflow-cluster-test test crash soak bench lint format docs clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(ROOT)/Makefile | expand -t 29

demo: $(VENV)/.demo ## upload a week of flights to a platform on this machine, and show what arrived
	@cd $(ROOT) && $(VENV)/bin/tidepost demo

airflow: $(VENV)/.dev ## start a real Airflow that uploads the demo's flights; Ctrl-C stops it
	@cd $(ROOT) && $(VENV)/bin/python -m deploy.local airflow $(if $(PORT),--port $(PORT))

airflow-cluster: $(VENV)/.dev ## the same with PostgreSQL, Redis, S3 and two Celery workers; needs redis-server
	@cd $(ROOT) && $(VENV)/bin/python -m deploy.local cluster $(if $(PORT),--port $(PORT))

airflow-cluster-test: $(VENV)/.dev ## backfill three months there, kill a worker, and measure; needs redis-server
	@cd $(ROOT) && TIDEPOST_TEST_DEBIAN=1 TIDEPOST_TEST_MONTHS=1 $(VENV)/bin/python -m pytest -s tests/airflow/real/test_cluster.py $(ARGS)

test: $(VENV)/.dev ## run the tests
	@cd $(ROOT) && $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

crash: $(VENV)/.dev ## kill, stop and starve runs at every step; needs strace
	@cd $(ROOT) && TIDEPOST_TEST_DEBIAN=1 TIDEPOST_TEST_EVERY_POINT=1 $(VENV)/bin/python -m pytest tests/crash $(ARGS)

soak: $(VENV)/.dev ## random violence for SECONDS=1200, half on SQLite, half on PostgreSQL, of a SEED if given
	@cd $(ROOT) && $(VENV)/bin/python -m tests.crash.soak --seconds $(or $(SECONDS),1200) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.dev ## measure tidepost beside what else one would use; writes docs/benchmarks.md
	@cd $(ROOT) && $(VENV)/bin/python -m tests.benchmarks --write docs/benchmarks.md $(ARGS)

lint: $(VENV)/.dev ## check style, types and the arrows between modules
	@cd $(ROOT) && $(VENV)/bin/ruff check && $(VENV)/bin/ruff format --check && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

format: $(VENV)/.dev ## put the code into its form
	@cd $(ROOT) && $(VENV)/bin/ruff check --fix && $(VENV)/bin/ruff format

docs: $(VENV)/.dev ## write the documentation that is generated from the code
	@cd $(ROOT) && $(VENV)/bin/python -m tidepost.docs --write docs

clean: ## remove what was installed here; the demo's data stay
	@rm -rf $(VENV) $(ROOT)/.cache

$(VENV)/.uv: $(ROOT)/locks/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'tidepost needs Python 3.11 or newer: make PYTHON=python3.11 …' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement $(ROOT)/locks/uv.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.uv $(ROOT)/locks/demo.txt $(ROOT)/locks/flights.txt $(ROOT)/pyproject.toml
	@$(INSTALL) --requirement $(ROOT)/locks/demo.txt
	@$(INSTALL) --requirement $(ROOT)/locks/flights.txt
	@$(PROJECT)
	@touch $@

$(VENV)/.dev: $(VENV)/.demo $(ROOT)/locks/dev.txt
	@$(INSTALL) --requirement $(ROOT)/locks/dev.txt
	@touch $@
