# Set-up, demo, tests and checks. Each target sets up what it needs, into .venv, and is quick when repeated.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out/demo
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SBOM_STAMP := $(VENV)/sbom/.installed

# What is compiled is kept, wherever this runs: tests start many processes, and each would compile everything anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup assets wheel demo test draws interop canaries chaos year replicas lint audit sbom format bench docs manual clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install everything into it

assets: $(STAMP) ## fetch LHC-Forms, which shows the case-review form in the browser, with npm
	$(BIN)/python .ci/fetch_forms.py

wheel: assets ## build the wheel into dist/, with the files of the case-review form in it
	$(BIN)/python -m hatchling build --target wheel

demo: $(STAMP) ## the whole nightly job, against the embedded hospital and receiver
	$(BIN)/io-fhir-adapter demo --out $(OUT)

test: $(STAMP) ## the test suite, on all cores
	$(BIN)/python -m pytest -n auto -m "not interop" $(PYTEST_ARGS)

draws: $(STAMP) ## is the draw fair? over 200,000 draws instead of the 10,000 of the test suite
	DRAW_ROUNDS=200000 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/review/test_draw_statistics.py

interop: $(STAMP) ## the tests with other makers' FHIR servers, validators and engines, which are fetched first
	$(BIN)/python -m pytest -n 2 -m interop $(PYTEST_ARGS)

canaries: $(STAMP) ## the canary campaign in full: a unique string in all that FHIR R4 allows in a record
	CANARIES=full $(BIN)/python -m pytest $(PYTEST_ARGS) tests/campaigns

chaos: $(STAMP) ## 200 submissions through a network that fails in every way, between machines that are killed
	CHAOS=full $(BIN)/python -m pytest -s $(PYTEST_ARGS) tests/campaigns/test_chaos.py

year: $(STAMP) ## a simulated year: 366 nights with what goes wrong in one, to the ground truth at its end
	YEAR=full $(BIN)/python -m pytest $(PYTEST_ARGS) tests/campaigns/test_year.py

replicas: $(STAMP) ## two services on one PostgreSQL, killed again and again for an hour: nothing is done or sent twice
	REPLICAS=full $(BIN)/python -m pytest -s $(PYTEST_ARGS) tests/campaigns/test_replicas.py

lint: $(STAMP) audit sbom ## style, types, architecture, and what the project is made of
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

audit: $(STAMP) ## known vulnerabilities in what it is installed with
	$(BIN)/python .ci/audit_dependencies.py

sbom: $(SBOM_STAMP) $(STAMP) ## the list of all parts, as CycloneDX, in build/sbom.json
	mkdir -p build
	$(VENV)/sbom/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json

format: $(STAMP) ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure speed and memory, as ratios
	$(BIN)/python -m benchmarks.run

docs: $(STAMP) ## write the pages of the manual that come from the code, and build the manual into site/
	$(BIN)/python .ci/error_table.py --write
	$(BIN)/python .ci/command_reference.py --write
	$(MAKE) manual

manual: $(STAMP) ## build the manual into site/; fails where a link leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean: ## remove .venv and everything that was made
	rm -rf $(VENV) out build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian keeps ensurepip, which a virtual environment needs, in a package of its own.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
	  else \
	    echo "Python's venv module is incomplete; as root, run apt-get install python3-venv, then make again" >&2; exit 2; \
	  fi; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	@touch $@

$(SBOM_STAMP): $(STAMP)
	$(BIN)/python -m venv --clear $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	$(VENV)/sbom/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group sbom
	@touch $@
