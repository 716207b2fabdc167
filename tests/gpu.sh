#!/bin/sh
# Every check that needs CUDA, in one go: `make test-gpu`, or this, in the root of the repository.
# It makes a virtual environment of its own, as the two builds of ONNX Runtime exclude each other.
set -eu
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
venv=build/cuda
if [ ! -e $venv/installed ]; then
	"${PYTHON:-python3.11}" -m venv $venv
	pip="$venv/bin/pip --quiet --disable-pip-version-check"
	$pip install --require-hashes -r requirements/dev.txt
	$pip uninstall --yes onnxruntime
	$pip install --require-hashes -r requirements/cuda.txt
	$pip install --no-deps --no-build-isolation --editable .
	touch $venv/installed
fi
$venv/bin/pytest -m gpu
HSOFTMAX_DEVICE=cuda $venv/bin/hsoftmax demo --check
