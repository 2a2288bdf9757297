# The workshop. Every target sets up what it needs: a fresh machine needs Python >= 3.11, make and git.
# `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.ready-run
DEV := $(VENV)/.ready-dev
MEASURED := $(VENV)/.ready-bench
INTEROP := .venv-celery
FLOWER := .venv-flower
NODE := tests/interop/node
PEERS := .venv-peers
OLD_PEERS := .venv-peers-redis5
PYTEST_ARGS ?= -n auto
BENCH_ARGS ?=
SCORECARD_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup servers demo test check fix bench scorecard sizes docs interop-env flower-env interop-node clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN): pyproject.toml requirements/constraints.txt tools/setup.sh
	@tools/setup.sh $(VENV) "$(PYTHON)" '.' && touch $@

$(DEV): $(RUN)
	@tools/setup.sh $(VENV) "$(PYTHON)" '.[test,check]' && touch $@

setup: $(DEV) ## create .venv with everything a contributor needs

servers: ## install Redis and RabbitMQ for the tests, where apt-get may
	@tools/servers.sh

demo: $(RUN) ## parse Python's standard library with one task per file, with progress and a summary
	@$(BIN)/celeriac demo

test: $(DEV) ## run all tests; installs the servers and the Celery environment that they need, if it can
	@tools/servers.sh
	@$(MAKE) --no-print-directory interop-env || echo 'WARNING: no $(INTEROP); the tests against Celery will be skipped'
	@$(MAKE) --no-print-directory flower-env || echo 'WARNING: no $(FLOWER); the tests with Flower will be skipped'
	@$(MAKE) --no-print-directory interop-node || echo 'WARNING: no Node clients; the tests with them will be skipped'
	@set -e; if [ -x $(INTEROP)/bin/python ]; then \
	  export CELERIAC_INTEROP_PYTHON="$(CURDIR)/$(INTEROP)/bin/python"; fi; \
	if [ -x $(FLOWER)/bin/python ]; then export CELERIAC_FLOWER_PYTHON="$(CURDIR)/$(FLOWER)/bin/python"; fi; \
	echo 'test: running pytest'; $(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(DEV) ## formatting, lint, types (mypy and pyright), import contracts, spelling, links of the docs
	@tools/check.sh $(BIN)

fix: $(DEV) ## repair formatting and what lint can repair
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(MEASURED) $(PEERS)/.ready $(OLD_PEERS)/.ready ## measure celeriac and its peers, 30 minutes (BENCH_ARGS='--own --scale 0.1 --runs 1': a short look)
	@tools/servers.sh
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

$(MEASURED): $(RUN)
	@tools/setup.sh $(VENV) "$(PYTHON)" '.[redis,uvloop]' && touch $@

$(PEERS)/.ready: tools/setup.sh requirements/peers.txt
	@tools/setup.sh $(PEERS) "$(PYTHON)" -r requirements/peers.txt && touch $@

$(OLD_PEERS)/.ready: tools/setup.sh requirements/peers-redis5.txt
	@tools/setup.sh $(OLD_PEERS) "$(PYTHON)" -r requirements/peers-redis5.txt && touch $@

scorecard: $(DEV) ## kill, cut, hang and fill things on purpose (SCORECARD_ARGS='--quick --only 1,5 --broker redis --peer celery --seed 2')
	@tools/servers.sh
	@set -e; if [ -x $(INTEROP)/bin/python ]; then \
	  export CELERIAC_INTEROP_PYTHON="$(CURDIR)/$(INTEROP)/bin/python"; fi; \
	$(BIN)/python -m scorecard $(SCORECARD_ARGS)

sizes: ## the ten largest files, functions and classes: would two people change these for different reasons?
	@$(PYTHON) tools/sizes.py src/celeriac

docs: ## check that the links in the documentation lead somewhere
	@$(PYTHON) tools/check_links.py

interop-env: $(INTEROP)/.ready ## create .venv-celery with the newest Celery, for the interop tests

$(INTEROP)/.ready: tools/setup.sh requirements/interop.txt
	@tools/setup.sh $(INTEROP) "$(PYTHON)" -r requirements/interop.txt && touch $@

flower-env: $(FLOWER)/.ready ## create .venv-flower with the newest Flower, for the test that lets it watch our workers

$(FLOWER)/.ready: tools/setup.sh requirements/flower.txt
	@tools/setup.sh $(FLOWER) "$(PYTHON)" -r requirements/flower.txt && touch $@

interop-node: $(NODE)/node_modules/.ready ## install the Node clients of Celery's protocol, for the interop tests

$(NODE)/node_modules/.ready: $(NODE)/package-lock.json
	@command -v npm >/dev/null || { echo 'interop-node: npm is missing (Debian: apt-get install nodejs npm)'; exit 1; }
	@echo 'interop-node: installing the pinned packages of $(NODE)'; cd $(NODE) && npm ci --silent && touch node_modules/.ready

clean: ## remove the environments and caches
	rm -rf $(VENV) $(INTEROP) $(FLOWER) $(PEERS) $(OLD_PEERS) $(NODE)/node_modules \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
