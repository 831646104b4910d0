# Every target sets up what it needs in .venv (Python 3.10+ with venv, g++ and make are assumed, nothing else).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo
# CUDA kernels: AUTO (where nvcc is found), ON (or fail) or OFF.
OTCORE_CUDA ?= AUTO
SOURCES := $(shell find csrc kernels -type f) CMakeLists.txt pyproject.toml .ci/constraints.txt
PIP := $(BIN)/pip install --quiet --constraint .ci/constraints.txt

.PHONY: demo test check bench predict gpu wheel clean

demo: $(VENV)/ready
	$(BIN)/python -m otcore_ae.demo --output $(OUT) $(DEMO)

test: $(VENV)/ready
	$(BIN)/python -m pytest $(TEST)

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/ready-bench
	$(BIN)/python benchmarks/compare.py $(BENCH)
	$(BIN)/asv machine --yes --config benchmarks/asv.conf.json
	$(BIN)/asv run --config benchmarks/asv.conf.json --python=same --quick --show-stderr

# Predicted times on GPUs, from machine code; PREDICT=--check compares its counts with the committed table.
predict: $(VENV)/ready
	$(BIN)/python -m benchmarks.gpu.predict $(PREDICT)

# On a machine with an NVIDIA GPU, with the torch of $(PYTHON): builds, tests and measures in nine minutes.
gpu:
	@$(PYTHON) -c "import torch" 2>/dev/null || { echo "$(PYTHON) has no torch: PYTHON=... names one with CUDA's"; exit 2; }
	$(PYTHON) -m benchmarks.gpu.run $(GPU)

# A wheel for this machine's Python, repaired to a manylinux tag, and tried in an environment of its own.
wheel: $(VENV)/ready
	rm -rf dist wheelhouse
	$(BIN)/python -m build --wheel --outdir dist --config-setting=cmake.define.OTCORE_CUDA=$(OTCORE_CUDA)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	rm -rf build/wheel-venv && $(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/pip install --quiet --constraint .ci/constraints.txt wheelhouse/*.whl
	cd build && wheel-venv/bin/python -m otcore info
	cd build && wheel-venv/bin/python -c "import torch; from otcore import sinkhorn_divergence as s; x = torch.rand(100, 2); print(float(s(x, x + 1)))"

$(VENV)/ready: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --config-settings=cmake.define.OTCORE_CUDA=$(OTCORE_CUDA) --editable ".[ae,dev,keops]"
	touch $@

$(VENV)/ready-bench: $(VENV)/ready benchmarks/requirements.txt
	$(PIP) --requirement benchmarks/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) build dist wheelhouse out
