"""Tests of the check for a machine with a GPU: a trial of it, on the CPU, without our packages."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from hsoftmax.runtime.devices import CPU, CUDA

from .archive import MAX_BYTES, make_archive, make_folder
from .cases import cases, small_cases
from .device import problem

# Modules that the machine with the GPU need not have.
_MISSING = ("cffi", "click", "onnx", "pydantic", "spox")
_SMALL = ("--clusters=6", "--block=5", "--hidden=4", "--batches=1,3", "--repeats=3", "--seconds=0")


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the check in its folder, in a process that finds nothing but NumPy and ONNX Runtime."""
    program = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({_MISSING}))\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "runpy.run_module('gpu_check', run_name='__main__', alter_sys=True)\n"
    )
    command = [sys.executable, "-P", "-c", program, *options]
    libraries = os.environ.get("LD_LIBRARY_PATH", "")  # of `make test-cuda`
    env = {
        "LD_LIBRARY_PATH": str(Path(libraries).absolute()),
        "LD_PRELOAD": _pretend_runtime(libraries),
    }
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )


def _pretend_runtime(libraries: str) -> str:
    """Return the pretend CUDA runtime, which stands before NVIDIA's own package; or nothing."""
    path = Path(libraries).absolute() / "libcudart.so.13"
    return str(path) if libraries and path.exists() else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    make_folder(folder, small_cases())
    return folder


def test_a_trial_on_the_cpu_is_right_and_prints_times(folder):
    done = run(folder, "--device=cpu", *_SMALL)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 wrong, 0 left out"
    right = [line for line in lines if " right " in line]
    assert len(right) == 5 * 2 + 2  # each task with both sizes of runs, two portable graphs
    assert sum(" rows, " in line for line in lines) == 5 * 2
    assert any(line.startswith("ONNX Runtime ") for line in lines)


def test_wrong_numbers_are_found(folder, tmp_path):
    [bundle] = (folder / "bundles").iterdir()
    with np.load(bundle / "reference.npz") as stored:
        numbers = dict(stored)
    original = (bundle / "reference.npz").read_bytes()
    numbers["ordinary.log_probs"] = numbers["ordinary.log_probs"] + 1e-3
    np.savez(bundle / "reference.npz", **numbers)
    try:
        done = run(folder, "--device=cpu", "--numbers-only", "--repeats=1")
    finally:
        (bundle / "reference.npz").write_bytes(original)
    assert done.returncode == 1
    wrong = {line.split()[1] for line in done.stdout.splitlines() if " WRONG " in line}
    assert wrong == {"log_probs", "target_log_prob", "top_k", "sample"}


def test_without_cuda_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    assert problem("cpu") is None
    missing = problem("cuda")
    assert missing is not None
    assert missing.startswith(f"onnxruntime: expected {CUDA}, got none: pip install")


@pytest.mark.slow
def test_the_whole_archive_is_small_and_right_on_the_cpu(tmp_path):
    file = tmp_path / "gpu-check.tar.gz"
    make_archive(file, cases())
    assert file.stat().st_size <= MAX_BYTES
    subprocess.run(["tar", "xzf", file, "-C", tmp_path], check=True)
    done = run(tmp_path / "gpu-check", "--device=cpu", "--numbers-only")
    assert done.returncode == 0, done.stdout


@pytest.mark.pretend_cuda
def test_on_a_pretend_device_it_ends_and_each_wrong_number_is_a_row(folder):
    """Kernels compute nothing there; what may not happen is that one wrong answer ends the rest."""
    done = run(folder, "--device=cuda", *_SMALL)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].endswith(" wrong, 0 left out")
    assert done.stdout.count(" WRONG ") + done.stdout.count(" right ") == 5 * 2 + 2
