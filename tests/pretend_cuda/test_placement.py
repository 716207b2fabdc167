"""Every kernel of each graph for CUDA runs on CUDA, and nothing is copied between, says a profile.

`make test-cuda` runs these tests with onnxruntime-gpu over a runtime that computes nothing.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from hsoftmax import bundle, exporter
from hsoftmax.exporter.graphs.cuda import cuda_graphs
from hsoftmax.models import Model, sparse_block_dot
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.cuda import SUFFIX, Steps, open_lowered_tasks
from hsoftmax.runtime.cuda.steps import DeviceArray, Feeds
from hsoftmax.runtime.device_memory import DeviceMemory
from hsoftmax.runtime.devices import CUDA, ON_CUDA, DeviceOutOfMemory
from hsoftmax.runtime.sessions import (
    OutOfDeviceMemory,
    choose_device,
    open_lowered,
    open_session,
    open_sessions,
    with_fallback,
)
from tests.exporter.graphs.test_hierarchical_softmax import hidden_for, softmax
from tests.models.adaptive import adaptive
from tests.models.trees import random_huffman

pytestmark = pytest.mark.pretend_cuda

_RNG = np.random.default_rng(0)
MODELS: dict[str, Model] = {
    "equal blocks, theano": softmax([50], [10] * 50, num_targets=480, padding="theano"),
    "unequal blocks": softmax([5], [3, 1, 12, 2, 7]),
    "three levels": softmax([3], [2, 3, 2], [4, 2, 1, 3, 3, 2, 6]),
    "targets in any order": softmax(
        [8], [5] * 8, num_targets=30, target_rows=_RNG.permutation(40)[:30]
    ),
    "adaptive": adaptive(shortlist=5, sizes=(7, 9), widths=(3, 1), head_bias=True),
    "tree": random_huffman(hidden_size=6, num_targets=70, lean=0.3, biases=True),
    "fastText": random_huffman(hidden_size=6, num_targets=70, lean=0.3, compat="fasttext"),
    "layer": sparse_block_dot.build(_RNG.normal(size=(3, 4, 5, 2)), _RNG.normal(size=(4, 2))),
}  # fmt: skip


class RecordingSteps(Steps):
    """Runs graphs on the CPU, and keeps the inputs of the last run of each."""

    feeds: dict[str, Feeds]

    def run(self, name, feeds):
        self.feeds[name] = feeds
        return super().run(name, feeds)

    def run_on_device(self, name, feeds):
        self.feeds[name] = feeds
        return super().run_on_device(name, feeds)


def recorded(model: Model, folder: Path) -> dict[str, Feeds]:
    """Run all tasks on the CPU, and return the inputs of each graph."""
    sessions = {}
    for file, proto in cuda_graphs(model).files.items():
        (folder / file).write_bytes(proto.SerializeToString())
        sessions[file.removesuffix(SUFFIX)] = open_session(folder / file)
    steps = RecordingSteps(sessions, "cpu", 20_000)
    steps.feeds = {}
    for task, compute in open_lowered_tasks(model, {}, steps).items():
        compute(query(model, task))
    assert sessions.keys() - steps.feeds.keys() <= {"blocks"}  # all blocks may lie in place
    return steps.feeds


def query(model: Model, task: str) -> dict[str, np.ndarray]:
    if task == "block_dot":
        h = np.ones((2, 2, 5), np.float32)
        return {
            "h": h,
            "input_index": np.array([[0, 1]] * 2),
            "output_index": np.array([[0, 2]] * 2),
        }
    depth = getattr(model, "depth", len(getattr(model, "levels", (0, 0))))
    return {"hidden": hidden_for(model, 3)} | {
        "target_log_prob": {"row": np.arange(3), "target": np.array([0, 5, model.num_targets - 1])},
        "top_k": {"k": np.array([3]), "max_blocks": np.array([0])},
        "sample": {"noise": noise(1, 3, 4, depth)},
    }.get(task, {})  # fmt: skip


def on_device(array: np.ndarray | DeviceArray, kept: list[ort.OrtValue]) -> ort.OrtValue:
    """Copy an array, or the part that a view has of one, to the device."""
    if isinstance(array, DeviceArray):
        size = int(np.prod(array.shape))
        flat = array.owner.numpy().ravel()[array.start : array.start + size]
        array = np.ascontiguousarray(flat.reshape(array.shape))
    kept.append(ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    return kept[-1]


def kernels(graph: Path, feeds: Feeds) -> Counter[tuple[str, str]]:
    """Run a graph on the device, and count its kernels by provider and operator."""
    options = ort.SessionOptions()
    options.enable_mem_reuse = False
    options.enable_profiling = True
    options.profile_file_prefix = str(graph)
    options.log_severity_level = 3
    session = ort.InferenceSession(graph, options, providers=list(ON_CUDA.providers))
    binding, kept = session.io_binding(), []
    for name, array in feeds.items():
        if isinstance(array, DeviceArray):
            binding.bind_ortvalue_input(name, on_device(array, kept))
        else:
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    session.run_with_iobinding(binding)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e["args"] for e in events if e["name"].endswith("_kernel_time")]
    return Counter((node["provider"], node["op_name"]) for node in nodes)


@pytest.mark.parametrize("name", MODELS)
def test_every_kernel_is_on_the_device_and_nothing_is_copied_between(name, tmp_path):
    for graph, feeds in recorded(MODELS[name], tmp_path).items():
        counted = kernels(tmp_path / f"{graph}{SUFFIX}", feeds)
        assert counted, graph
        assert {provider for provider, _ in counted} == {CUDA}, (graph, counted)
        assert not [op for _, op in counted if "Memcpy" in op], (graph, counted)


def test_blocks_are_copied_together_too(tmp_path):
    assert "blocks" in recorded(MODELS["equal blocks, theano"], tmp_path)


def test_the_check_finds_a_portable_graph_that_runs_in_part_on_the_cpu(tmp_path):
    """Kernels of the portable graph of full distributions are counted on both providers."""
    to = exporter.parse_destination(tmp_path / "words")
    made = exporter.export_model(MODELS["equal blocks, theano"], to)
    graph = made.file(made.manifest.tasks["log_probs"].file)
    counted = kernels(graph, {"hidden": np.ones((3, 6), np.float32)})
    assert "CPUExecutionProvider" in {provider for provider, _ in counted}


def test_a_bundle_opens_on_the_device_with_its_weights_there_once(tmp_path):
    device = choose_device("cuda", 1)
    assert device.name == "cuda"
    to = exporter.parse_destination(tmp_path / "words")
    made = exporter.export_model(MODELS["unequal blocks"], to, cuda=True)
    lowered = open_lowered(bundle.open_bundle(made.path), device)
    assert {task.steps.device for task in lowered.values()} == {"cuda"}
    hidden = np.ones((3, 6), np.float32)
    assert lowered["log_probs"]({"hidden": hidden})[0].shape == (3, 25)


def test_a_run_beyond_the_part_for_runs_is_refused_and_the_next_one_succeeds(tmp_path):
    device = choose_device("cuda", 1, gpu_memory=4 << 20)
    to = exporter.parse_destination(tmp_path / "words")
    made = exporter.export_model(MODELS["unequal blocks"], to, cuda=True)
    served = open_sessions(bundle.open_bundle(made.path), device)
    hidden = np.ones((200_000, 6), np.float32)
    with pytest.raises(DeviceOutOfMemory, match="smaller than requested"):
        served["cluster_log_probs"].run({"hidden": hidden})
    assert served["cluster_log_probs"].run({"hidden": hidden[:3]})[0].shape == (3, 5)


def test_weights_beyond_the_part_for_weights_are_refused_or_go_to_the_cpu(tmp_path):
    to = exporter.parse_destination(tmp_path / "words")
    made = exporter.export_model(MODELS["unequal blocks"], to, cuda=True)
    opened = bundle.open_bundle(made.path)
    full = replace(choose_device("auto", 1), memory=DeviceMemory(64))
    with pytest.raises(OutOfDeviceMemory, match="--gpu-memory 64 leaves"):
        open_sessions(opened, full)
    sessions = with_fallback(full, lambda device: open_sessions(opened, device))
    assert {session.device for session in sessions.values()} == {"cpu"}
