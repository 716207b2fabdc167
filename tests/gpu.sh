#!/bin/sh
# Every check that needs CUDA, in one go: `make test-gpu`, or this, in the root of the repository.
# It makes a virtual environment of its own, as the two builds of ONNX Runtime exclude each other;
# where an environment is there that has all, PYTHON_WITH_CUDA names its Python.
set -eu
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
venv=build/cuda
python=${PYTHON_WITH_CUDA:-$venv/bin/python}
if [ -z "${PYTHON_WITH_CUDA:-}" ] && [ ! -e $venv/installed ]; then
	"${PYTHON:-python3.11}" -m venv $venv
	pip="$venv/bin/pip --quiet --disable-pip-version-check"
	$pip install --require-hashes -r requirements/dev.txt
	$pip uninstall --yes onnxruntime
	$pip install --require-hashes -r requirements/cuda.txt
	$pip install --no-deps --no-build-isolation --editable .
	touch $venv/installed
fi
pytest="$python -m pytest"
# The numbers of every family, task and precision, 8 at a time, and times: this first.
$python -m tests.gpu_check.archive build/gpu-check.tar.gz
tar -xzf build/gpu-check.tar.gz -C build
PYTHONPATH=build/gpu-check $python -P -m gpu_check
export HSOFTMAX_DEVICE=cuda
$pytest -m gpu
# The same tables of shapes, and the same requests, as on the CPU; each process takes gigabytes of
# the device, as every session of its many apps has handles of its own.
$pytest -n 2 tests/exporter/graphs tests/service
# The graphs for CUDA over the whole table of shapes.
$pytest -n 2 -m slow tests/exporter/graphs/test_cuda_*.py
$python -m hsoftmax demo --check
