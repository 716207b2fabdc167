#!/bin/sh
# Where each node of the graphs for CUDA runs, on a machine without a GPU: `make test-cuda`.
# It makes a virtual environment of its own with onnxruntime-gpu and NVIDIA's headers, and builds the
# pretend CUDA runtime with gcc. Where an environment is there that has all, PYTEST_PYTHON names its
# Python.
set -eu
venv=build/pretend-cuda
python=${PYTEST_PYTHON:-$venv/bin/python}
pinned() { sed -n "/^$1==/,/[^\\\\]\$/p" requirements/cuda.txt; }
if [ -z "${PYTEST_PYTHON:-}" ] && [ ! -e $venv/installed ]; then
	"${PYTHON:-python3.11}" -m venv $venv
	pip="$venv/bin/pip --quiet --disable-pip-version-check"
	$pip install --require-hashes -r requirements/dev.txt
	$pip uninstall --yes onnxruntime
	pinned onnxruntime-gpu >$venv/requirements.txt
	pinned nvidia-cuda-runtime >>$venv/requirements.txt
	$pip install --no-deps --require-hashes -r $venv/requirements.txt
	$pip install --no-deps nvidia-cuda-crt
	$pip install --no-deps --no-build-isolation --editable .
	touch $venv/installed
fi
"$python" -m tests.pretend_cuda build/pretend-cuda/runtime
LD_LIBRARY_PATH=build/pretend-cuda/runtime "$python" -m pytest -n 0 -m pretend_cuda tests/pretend_cuda tests/gpu_check
