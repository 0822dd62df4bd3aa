# Short recipes. Needs nothing but Python 3.11–3.13 with pip; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OMNI := 0.26.0 0.30.0

.PHONY: help install demo test test-gpu check bench train clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## make .venv with everything pinned by constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[diffusers,serve,dev]'
	@for version in $(OMNI); do \
	  $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	    --dest $(VENV)/wheels "vllm-omni==$$version" 2>>$(VENV)/wheels.log || \
	  echo "vllm-omni $$version cannot be fetched: tests that read its source will be skipped"; \
	done
	@touch $@

demo: $(INSTALLED)  ## a small real sweep on the embedded AR + DiT model, no GPU needed
	$(BIN)/python -m sweep -m +study=quick hydra.sweep.dir=outputs/demo

test: $(INSTALLED)  ## all tests that need no GPU, three files at a time, because tests also wait
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

test-gpu: $(INSTALLED)  ## tests that need a CUDA GPU
	$(BIN)/python -m pytest -q -m gpu

check: $(INSTALLED)  ## lint, format, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## paired measurements of the framework's own cost
	$(BIN)/python -m tests.bench

train: $(INSTALLED)  ## train the embedded model anew (one GPU, about 18 minutes); OUT=DIR SEED=N
	$(BIN)/python -m sweep.checkpoints.training $(or $(OUT),outputs/training) --seed $(or $(SEED),1)

clean:  ## remove .venv and outputs
	rm -rf $(VENV) outputs
