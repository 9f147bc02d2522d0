# `make help` lists what there is. Everything happens in .venv, from the lock file, hashes checked.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo run test test-real real agent agent-deb lint format bench lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Many tests wait for processes and sockets: two workers more than there are cores.
WORKERS ?= $(shell expr $$(nproc) + 2)
REAL_WORKERS ?= 2
DATA ?= $(if $(XDG_DATA_HOME),$(XDG_DATA_HOME),$(HOME)/.local/share)/iot-bridge
PYTEST_ARGS ?=

BIN := .venv/bin
READY := .venv/installed
REPORTS := build/reports

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(READY) ## a device's first boot and its end, on the embedded stack
	@$(BIN)/python -m compose.demo

run: $(READY) ## the bridge on the embedded stack, in the foreground (DATA=folder)
	$(BIN)/iot-bridge serve --data "$(DATA)"

test: $(READY) ## every test that needs no server of others: no root, no network
	@$(BIN)/python packaging/agent/libraries.py
	@mkdir -p $(REPORTS)
	$(BIN)/pytest -m "not real" -n $(WORKERS) --dist worksteal --junit-xml=$(REPORTS)/test.xml $(PYTEST_ARGS)

test-real: $(READY) ## install and start the real servers, run the suites against them (root)
	bash compose/real/install.sh
	$(BIN)/python compose/real/check.py
	$(BIN)/python compose/real/step_ca.py install
	$(BIN)/python compose/real/hawkbit_server.py build
	$(BIN)/python compose/real/debian_root.py build
	@mkdir -p $(REPORTS)
	$(BIN)/pytest -m real -n $(REAL_WORKERS) --dist loadfile --junit-xml=$(REPORTS)/test-real.xml $(PYTEST_ARGS)

real: $(READY) ## the real servers and the bridge, in the foreground, until Ctrl-C
	bash compose/real/install.sh
	$(BIN)/python compose/real/check.py
	$(BIN)/python compose/real/stack.py

agent: $(READY) ## the device agent as one file, build/iot-enroll.pyz
	@$(BIN)/python packaging/agent/build_zipapp.py

agent-deb: agent ## the same as a Debian package, build/iot-enroll_VERSION_all.deb
	@$(BIN)/python packaging/agent/build_deb.py

lint: $(READY) ## ruff, mypy strict, the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p compose.demo -p compose.real
	$(BIN)/mypy packaging/agent/*.py
	$(BIN)/lint-imports

format: $(READY) ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## speed and memory, as ratios of one run
	$(BIN)/python tests/benchmarks/run.py

lock: $(READY) ## resolve requirements.lock again from pyproject.toml
	$(BIN)/pip-compile --upgrade --all-extras --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate -o requirements.lock pyproject.toml

clean: ## remove .venv, caches and reports (not .real, which takes minutes to build)
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into .venv, once: about a minute"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
