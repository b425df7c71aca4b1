# Every target makes its own virtual environment in .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# threads that spin while they wait make everything slow on a busy machine
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-gpu check bench bench-gpu clean

demo: .venv/.landmarks
	$(BIN)/facemodels demo

# one thread for each of the processes that share the cores
test check: export OMP_NUM_THREADS ?= 1

test: .venv/.dev
	$(BIN)/python -m pytest -n logical

# the kernels on a CUDA device, with the torch for it that is already in .venv
test-gpu: .venv/.dev
	$(BIN)/python -m pytest -m gpu tests/multilinear

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n logical -m "not slow"

bench: .venv/.dev
	$(BIN)/python -m benchmarks all
	$(BIN)/python -m benchmarks table
	$(BIN)/python -m benchmarks plot

bench-gpu: .venv/.dev
	$(BIN)/python -m benchmarks all --device cuda
	$(BIN)/python -m benchmarks table --device cuda
	$(BIN)/python -m benchmarks plot --device cuda

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first, pinned: a later step must not pull another build of it
.venv/.torch: constraints.txt | .venv/bin/python
	$(INSTALL) torch
	touch $@

.venv/.landmarks: .venv/.torch pyproject.toml
	$(INSTALL) --editable '.[faces,landmarks]'
	touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(INSTALL) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo
