"""Tests that a bundle tells where each of its tasks runs."""

import io
import json
import time
from dataclasses import replace

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from hsoftmax import exporter
from hsoftmax.bundle import BundleError
from hsoftmax.runtime.device_memory import DeviceMemory
from hsoftmax.runtime.devices import CPU, ON_CPU, Device
from hsoftmax.runtime.sessions import choose_device
from hsoftmax.service import Settings, context, create_app
from hsoftmax.service.logging import json_log
from hsoftmax.service.repository.loaded_bundle import load_bundle
from tests.models.trees import random_huffman

# Sessions of this device run on the CPU: the same code as on CUDA, without a GPU.
PRETEND_CUDA = Device("cuda", (CPU,))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Export a tree with graphs for CUDA of all tasks but top_k."""
    to = exporter.parse_destination(tmp_path_factory.mktemp("trees") / "tree")
    model = random_huffman(hidden_size=6, num_targets=9)
    return exporter.export_model(model, to, cuda=True).path


def test_each_task_names_the_device_that_computes_it(tree):
    choose_device("cpu", 1)
    loaded = load_bundle("tree", 1, tree, device=PRETEND_CUDA, check_hashes=True)
    assert loaded.devices == {
        "log_probs": "cuda", "sample": "cuda", "target_log_prob": "cuda", "top_k": "cpu"
    }  # fmt: skip
    on_cpu = load_bundle("tree", 1, tree, device=ON_CPU, check_hashes=True)
    assert set(on_cpu.devices.values()) == {"cpu"}


def test_a_bundle_without_room_is_on_the_cpu_and_log_metric_and_model_say_so(tree, monkeypatch):
    choose_device("cpu", 1)
    full = replace(PRETEND_CUDA, memory=DeviceMemory(8), fallback=ON_CPU)
    monkeypatch.setattr(context, "choose_device", lambda *_: full)
    log = io.BytesIO()
    app = create_app(Settings(repository=tree.parent, threads=1), log=json_log("info", log))
    with TestClient(app) as client:
        while "being loaded" in client.get("/healthz/ready").text:
            time.sleep(0.01)
        model = client.get("/v1/models/tree").json()
        metrics = client.get("/metrics").text
    assert (model["device"], set(model["devices"].values())) == ("cpu", {"cpu"})
    assert model["device_fallback"] == "out_of_memory"
    assert 'hsoftmax_task_info{device="cpu"' in metrics
    assert 'device="cuda"' not in metrics
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    [event] = [event for event in events if event["event"] == "device_fallback"]
    assert (event["level"], event["model"], event["device"]) == ("warning", "tree", "cpu")
    assert "--gpu-memory 8 leaves" in event["reason"]


def test_a_device_that_must_be_used_refuses_a_bundle_without_room(tree, monkeypatch):
    choose_device("cpu", 1)
    full = replace(PRETEND_CUDA, memory=DeviceMemory(8))
    with pytest.raises(BundleError, match="--gpu-memory 8 leaves"):
        load_bundle("tree", 1, tree, device=full, check_hashes=False)


@pytest.mark.parametrize(
    ("text", "num_bytes"), [("8GiB", 8 << 30), ("1500MB", 1_500_000_000), ("67108864", 64 << 20)]
)
def test_the_bound_of_memory_takes_a_unit(tmp_path, text, num_bytes):
    assert Settings(repository=tmp_path, gpu_memory=text).gpu_memory == num_bytes


@pytest.mark.parametrize("text", ["1MiB", "-1", "lots"])
def test_a_bound_that_is_no_size_or_too_small_is_refused(tmp_path, text):
    with pytest.raises(ValidationError, match="gpu_memory"):
        Settings(repository=tmp_path, gpu_memory=text)
