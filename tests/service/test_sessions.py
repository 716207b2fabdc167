"""Tests that a session runs on the device that it reports."""

import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from hsoftmax.bundle import open_bundle
from hsoftmax.models.hierarchical_softmax import log_probs
from hsoftmax.runtime.devices import CPU, CUDA, ON_CPU, ON_CUDA, DeviceError
from hsoftmax.runtime.sessions import Session, choose_device, open_sessions
from hsoftmax.service import Settings, StartError, create_app

from .conftest import SERVED, TOLERANCE, serving

has_cuda = CUDA in ort.get_available_providers()
# A process that has chosen a device cannot export.
pytestmark = pytest.mark.usefixtures("repository")

NATIVE = ("sample", "target_log_prob", "top_k")

# A CUDA build on a machine without CUDA.
_LOOKS = f"""
import onnxruntime, warnings
onnxruntime.get_available_providers = lambda: ["{CUDA}", "{CPU}"]
warnings.simplefilter("ignore")
"""


@pytest.mark.skipif(has_cuda, reason="this machine may have CUDA")
def test_cuda_without_cuda_is_an_error_and_never_the_cpu(repository):
    with pytest.raises(StartError, match="device: expected cuda, got none"):
        create_app(Settings(repository=repository, device="cuda"))


@pytest.mark.skipif(has_cuda, reason="this machine may have CUDA")
def test_auto_is_the_cpu_where_there_is_no_cuda():
    assert choose_device("auto", 1).name == "cpu"


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
@pytest.mark.parametrize("task", ["target_log_prob", "top_k", "sample", "block_dot"])
def test_what_is_not_dense_runs_on_the_cpu(device, task):
    assert device.providers_of(task) == (CPU,)


def test_loading_runs_every_graph_once_and_every_kernel_on_one_block(repository, monkeypatch):
    """A full pass over the weights takes long; the graphs have made one already."""
    runs, original = [], Session.run

    def run(session, feeds, options=None):
        limit = feeds["max_blocks"].tolist() if "max_blocks" in feeds else None
        runs.append((session.task, session.runtime_name, limit))
        return original(session, feeds, options)

    monkeypatch.setattr(Session, "run", run)
    device = choose_device("cpu", 1, "on")
    sessions = open_sessions(open_bundle(repository / "words" / "2"), device)
    graphs = [(task, "onnxruntime", [0] if task == "top_k" else None) for task in sessions]
    kernels = [(task, "native", [1] if task == "top_k" else None) for task in NATIVE]
    assert sorted(runs, key=str) == sorted(graphs + kernels, key=str)


def test_cpu_is_the_cpu():
    assert choose_device("cpu", 1).providers == (CPU,)


def test_cuda_that_is_built_in_but_does_not_come_up_is_an_error(monkeypatch):
    """Without a driver ONNX Runtime silently falls back to the CPU; the service must not."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    if has_cuda:
        pytest.skip("this machine may have CUDA")
    with pytest.warns(UserWarning, match="not in available"):
        assert choose_device("auto", 1).name == "cpu"
    with (
        pytest.warns(UserWarning, match="not in available"),
        pytest.raises(DeviceError, match="expected cuda, got none"),
    ):
        choose_device("cuda", 1)


def test_who_looks_for_cuda_in_a_new_process_learns_why_there_is_none():
    look = f"{_LOOKS}from hsoftmax.runtime.sessions import choose_device; choose_device('cuda', 1)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    expected = "device: expected cuda, got none: its libraries or its driver do not load"
    assert done.stderr.splitlines()[-1].endswith(expected)


@pytest.mark.gpu
def test_cuda_computes_without_tf32():
    device = choose_device("cuda", 1)
    assert device.name == "cuda"
    name, settings = device.providers[0]
    assert (name, settings["use_tf32"]) == (CUDA, "0")


@pytest.mark.gpu
def test_an_app_on_cuda_reports_it_and_agrees_with_the_reference(repository, hidden):
    query = {"inputs": hidden.tolist(), "log": True}
    with serving(repository, device="cuda") as client:
        models = client.get("/v1/models").json()["models"]
        response = client.post("/v1/models/words/probabilities", json=query).json()
    assert {model["device"] for model in models} == {"cuda"}
    expected = log_probs(SERVED["words", 2], hidden)
    np.testing.assert_allclose(response["log_probabilities"], expected, rtol=0, atol=TOLERANCE)


def test_a_process_that_serves_can_export_and_verify(tmp_path, repository):
    """ONNX Runtime refuses sessions with threads of their own once a process has a pool."""
    program = f"""
from pathlib import Path
from hsoftmax import exporter
from hsoftmax.runtime.sessions import choose_device, open_single_thread_session
from hsoftmax.bundle import open_bundle
from tests.service.conftest import SERVED
choose_device("cpu", 1)
choose_device("cpu", 2)
to = exporter.parse_destination(Path({str(tmp_path / "words" / "1")!r}))
exporter.export_model(SERVED["words", 2], to)
session = open_single_thread_session(open_bundle(to.path), "target_log_prob", native=False)
print(session.task)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("target_log_prob\n", "")
