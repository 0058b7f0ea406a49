# `make run` and `make test` are all that a newcomer needs; `make check` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BENCH := .venv-bench
DOCS := .venv-docs
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

.DEFAULT_GOAL := help
.PHONY: help install run test test-browser test-chart test-image chart soak soak-models docs lint check bench bench-full lock clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.test ## Create .venv with all that tests and checks need

# `make run` installs only what runs; the tests come on top of it, in the same versions.
$(VENV)/.run: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what the service needs into $(VENV) (half a minute, once)"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	@echo "Installing what the tests need into $(VENV) (two minutes, once)"
	@$(PIP) --require-hashes -r requirements/test.txt
	@touch $@

run: $(VENV)/.run ## Start everything on this machine: PostgreSQL, Valkey, the service, a demo page
	@exec $(BIN)/chat-service dev

test: install ## Run the tests on real PostgreSQL and Valkey
	$(BIN)/python -m pytest -m "not browser and not chart and not image" $(if $(DATABASE_URL)$(REDIS_URL),,-n 2 --dist loadfile)

test-browser: install ## Run the tests of the demo page in headless Chromium
	$(BIN)/python -m pytest -m browser

test-chart: install ## Run the tests of the chart and of what belongs to it, by helm, kubectl and promtool
	$(BIN)/python -m pytest -m chart

test-image: install ## Build the image and run the tests of it, with buildah, as root
	$(BIN)/python -m pytest -m image

soak: install ## Break everything at random under mixed work and check every promise (ten minutes, or SOAK_SECONDS)
	@PYTHONPATH=tests:tests/cluster:tests/webhooks exec $(BIN)/python -m soak --seconds $(or $(SOAK_SECONDS),600) $(if $(SOAK_SEED),--seed $(SOAK_SEED)) $(if $(SOAK_KEEP),--keep)

soak-models: install ## Run the state machines for longer than the tests do
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest tests/models --timeout 3600

chart: install ## Renew the table in the chart's README
	$(BIN)/python helm/readme.py

$(DOCS)/.installed: requirements/docs.txt
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	@echo "Installing what builds the site of the documentation into $(DOCS) (once)"
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

docs: install $(DOCS)/.installed ## Renew the generated pages of docs/ and build their site, strictly, into site/
	$(BIN)/python scripts/generate_docs.py
	$(DOCS)/bin/zensical build --clean --strict

lint: install ## Format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test test-chart test-browser docs ## All that CI runs

$(BENCH)/.installed: requirements/bench.txt pyproject.toml benchmarks/node/package-lock.json
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@echo "Installing what the benchmarks need into $(BENCH) and benchmarks/node (some minutes, once)"
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@cd benchmarks/node && $(abspath $(BENCH))/bin/npm ci --no-progress --loglevel=error
	@touch $@

bench: $(BENCH)/.installed ## Compare the speed with Node's, in less than two minutes (Linux)
	@exec $(BENCH)/bin/python -m benchmarks

bench-full: $(BENCH)/.installed ## The same with more rounds, more sockets and every scenario (less than half an hour)
	@exec $(BENCH)/bin/python -m benchmarks --full

lock: install ## Renew the locked versions, with hashes
	$(PIP) uv
	$(LOCK) --upgrade pyproject.toml -o requirements/prod.txt
	$(LOCK) --upgrade --extra dev --constraint requirements/prod.txt pyproject.toml -o requirements/dev.txt
	$(LOCK) --upgrade --extra dev --extra test --constraint requirements/dev.txt pyproject.toml -o requirements/test.txt
	$(LOCK) --upgrade --extra dev --extra bench --constraint requirements/test.txt pyproject.toml -o requirements/bench.txt
	echo hatchling | $(LOCK) --constraint requirements/dev.txt - -o requirements/build.txt
	$(LOCK) --upgrade --group docs --constraint requirements/test.txt -o requirements/docs.txt

clean: ## Remove what was installed and the data of `make run`
	rm -rf $(VENV) $(BENCH) $(DOCS) benchmarks/node/node_modules .data .tools .cache site
