#!/bin/sh
# Every check that needs CUDA, in one go: `make test-gpu`, or this, in the root of the repository.
# It makes a virtual environment of its own, as the two builds of ONNX Runtime exclude each other;
# where an environment is there that has all, PYTEST and HSOFTMAX name its commands.
set -eu
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
venv=build/cuda
if [ -z "${PYTEST:-}" ] && [ ! -e $venv/installed ]; then
	"${PYTHON:-python3.11}" -m venv $venv
	pip="$venv/bin/pip --quiet --disable-pip-version-check"
	$pip install --require-hashes -r requirements/dev.txt
	$pip uninstall --yes onnxruntime
	$pip install --require-hashes -r requirements/cuda.txt
	$pip install --no-deps --no-build-isolation --editable .
	touch $venv/installed
fi
pytest=${PYTEST:-$venv/bin/pytest}
export HSOFTMAX_DEVICE=cuda
$pytest -m gpu
# The same tables of shapes, and the same requests, as on the CPU; each process takes gigabytes of
# the device, as every session of its many apps has handles of its own.
$pytest -n 2 tests/exporter/graphs tests/service
${HSOFTMAX:-$venv/bin/hsoftmax} demo --check
