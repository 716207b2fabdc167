"""Tests that a bundle tells where each of its tasks runs."""

import pytest

from hsoftmax import exporter
from hsoftmax.runtime.devices import CPU, ON_CPU, Device
from hsoftmax.runtime.sessions import choose_device
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
