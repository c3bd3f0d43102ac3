# Everything runs in .venv, which the first call makes by itself from any Python >= 3.11 with pip.
PYTHON ?= python3
# More words for the command behind a target: make test ARGS="-k parity", make demo ARGS="--help"
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test soak lint format types audit docs requirements lowest build clean
.DEFAULT_GOAL := help

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

# A .venv whose Python was removed, or that came along with a moved folder, is as good as none.
ifneq ($(shell test -x $(BIN)/python && grep -qxF "$(CURDIR)" $(READY) 2>/dev/null || echo absent),)
.PHONY: $(READY)
endif
$(READY): requirements.txt pyproject.toml scripts/bootstrap
	@sh scripts/bootstrap "$(PYTHON)"

demo: $(READY) ## export the sample model, prove it equal, run it on every runtime; pictures in out/demo
	@$(BIN)/edgemask demo $(ARGS)

# One thread a worker: two workers with a thread pool each fight over the same cores. A worker that hangs shows where, and
# dies; one that dies is not replaced, since pytest-xdist may then wait for ever.
PYTEST_PARALLEL := -m pytest -n 2 --dist loadfile --max-worker-restart 0 \
    -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true
test: $(READY) ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST_PARALLEL) $(ARGS)

soak: $(READY) ## run what takes too long for every day: more families and samples, the real networks, 200 sizes
	@$(BIN)/python -m pytest -m soak $(ARGS)

lint: $(READY) ## check style and formatting
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/ruff format --check $(ARGS)

format: $(READY) ## mend style and formatting
	@$(BIN)/ruff check --fix $(ARGS)
	@$(BIN)/ruff format $(ARGS)

types: $(READY) ## check types
	@$(BIN)/mypy $(ARGS)

audit: $(READY) ## look the pinned packages up in the database of known holes, where it can be reached
	@$(BIN)/python scripts/audit.py

docs: $(READY) ## build the documentation into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

requirements: $(READY) ## pin requirements.txt anew; ARGS=--upgrade takes the newest versions
	@.tools/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	    --custom-compile-command "make requirements" \
	    --extra openvino --extra export --extra train --extra draw --extra validate --extra video --extra cluster --extra docs --extra dev \
	    $(ARGS) --output-file requirements.txt pyproject.toml requirements.in

lowest: $(READY) ## run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	@.tools/uv/bin/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	@.tools/uv/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
	    --editable '.[all,dev,docs]'
	@OMP_NUM_THREADS=1 .venv-lowest/bin/python $(PYTEST_PARALLEL) $(ARGS)

build: $(READY) ## write the source package and the wheel into dist/, and check them
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation $(ARGS)
	@$(BIN)/twine check --strict dist/*

clean: ## remove what builds and tests have written; .venv and out stay
	rm -rf build dist site htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find edgemask export runtimes samples tests -name __pycache__ -prune -exec rm -rf {} +
