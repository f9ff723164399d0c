# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
BACKEND ?= jax
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready

.PHONY: demo test lint bench docs clean

demo: $(READY)
	$(BIN)/keras-lowrank demo --backend $(BACKEND)

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests

lint: $(READY)
	$(BIN)/pre-commit run --all-files

# All benchmarks or one file, with options of pytest: `make bench
# FILE=benchmarks/test_growth.py ARGS=-x`. Tables go to `benchmarks/results`.
FILE ?= benchmarks
bench: $(BENCH_READY)
	KERAS_BACKEND=$(BACKEND) \
	XLA_FLAGS=--xla_force_host_platform_device_count=$$(nproc) \
	$(BIN)/python -m pytest $(FILE) --benchmark-group-by=group --benchmark-columns=median,min,rounds $(ARGS)

# The site, in `docs/_build/html`. Runs every tutorial, on $(BACKEND): minutes.
# `make docs DOCS_ARGS="-D nb_execution_mode=off"` leaves that out.
docs: $(READY)
	KERAS_BACKEND=$(BACKEND) $(BIN)/sphinx-build -M html docs docs/_build \
		-n -W --keep-going $(DOCS_ARGS)

$(BENCH_READY): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	touch $@

# One environment serves everything: all three backends, on the CPU. Torch is
# pinned first, by itself, so that no resolver chooses a build with CUDA.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt \
		--editable ".[tensorflow,jax,torch,dev]"
	touch $@

clean:
	rm -rf $(VENV)
