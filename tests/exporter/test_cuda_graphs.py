"""Tests of `export --cuda`: the graphs in the bundle, their checks, and sessions that use them."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from hsoftmax import bundle, exporter, models
from hsoftmax.exporter.graphs.cuda import cuda_graphs
from hsoftmax.models import hierarchical_softmax as reference
from hsoftmax.runtime.cuda import Steps
from hsoftmax.runtime.devices import CPU, Device
from hsoftmax.runtime.native import StopFlag
from hsoftmax.runtime.sessions import RunOptions, choose_device, open_lowered, open_sessions

from .conftest import theano_arrays

MODEL = models.from_theano(**theano_arrays(), num_targets=18)
# Sessions of this device run on the CPU: the same code as on CUDA, without a GPU.
PRETEND_CUDA = Device("cuda", (CPU,))
# They need values on the host that only the device knows, or nodes that run on the CPU.
REFUSED = {"Loop", "Scan", "If", "Range", "Unique", "NonZero", "Shape", "Size", "ConstantOfShape"}


def exported(folder: Path, *, cuda: bool) -> bundle.Bundle:
    return exporter.export_model(MODEL, exporter.parse_destination(folder / "words"), cuda=cuda)


@pytest.fixture(scope="module")
def with_cuda(tmp_path_factory) -> bundle.Bundle:
    return exported(tmp_path_factory.mktemp("with"), cuda=True)


@pytest.fixture(scope="module")
def without_cuda(tmp_path_factory) -> bundle.Bundle:
    return exported(tmp_path_factory.mktemp("without"), cuda=False)


@pytest.fixture
def cpu() -> Device:
    """The CPU, chosen: sessions that serve need the threads of the process."""
    return choose_device("cpu", 1)


def test_without_the_option_a_bundle_stays_of_schema_1_with_the_same_digest(
    with_cuda, without_cuda
):
    plain = without_cuda.manifest
    assert plain.schema_version == 1
    assert not any(".cuda." in name for name in plain.files)
    assert with_cuda.manifest.schema_version == 2
    portable = {
        name: file for name, file in with_cuda.manifest.files.items() if name in plain.files
    }
    assert portable == plain.files


def test_the_graphs_are_small_and_hold_no_weights(with_cuda):
    graphs = [name for name in with_cuda.manifest.files if name.endswith(".cuda.onnx")]
    assert len(graphs) == 5
    for name in graphs:
        proto = onnx.load(with_cuda.file(name))
        assert with_cuda.file(name).stat().st_size < 5_000
        assert not any(one.external_data for one in proto.graph.initializer)


def test_no_operator_needs_a_value_on_the_host_that_only_the_device_knows():
    unequal = reference.build(MODEL.levels, num_targets=18, target_rows=np.arange(18)[::-1])
    for model in (MODEL, unequal):
        for name, proto in cuda_graphs(model).files.items():
            assert REFUSED.isdisjoint(node.op_type for node in proto.graph.node), name


def test_every_task_with_a_graph_for_cuda_is_checked(with_cuda):
    checks = with_cuda.manifest.verification
    lowered = [task for task, graph in with_cuda.manifest.tasks.items() if graph.lowerings]
    on_cuda = {check.task for check in checks if check.task.endswith(" on cuda")}
    assert on_cuda == {f"{task} on cuda" for task in lowered}
    assert len(lowered) == len(with_cuda.manifest.tasks)


def test_the_graph_of_a_layer_is_checked_too(tmp_path):
    rng = np.random.default_rng(0)
    layer = models.sparse_block_dot.build(rng.normal(size=(3, 4, 5, 2)), rng.normal(size=(4, 2)))
    to = exporter.parse_destination(tmp_path / "layer")
    checks = exporter.export_model(layer, to, cuda=True).manifest.verification
    assert [check.task for check in checks] == ["block_dot"] * 3 + ["block_dot on cuda"] * 3


def test_a_graph_for_cuda_with_wrong_numbers_fails_its_check(with_cuda, tmp_path):
    for file in with_cuda.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    proto = onnx.load(tmp_path / "target_log_prob.cuda.onnx")
    for node in proto.graph.node:
        node.op_type = "Softmax" if node.op_type == "LogSoftmax" else node.op_type
    onnx.save(proto, tmp_path / "target_log_prob.cuda.onnx")
    failures = exporter.failures(exporter.verify(tmp_path, with_cuda.manifest))
    assert failures
    assert all(failure.startswith("target_log_prob on cuda, ") for failure in failures)


def test_a_graph_for_cuda_that_does_not_load_is_refused(with_cuda, tmp_path):
    for file in with_cuda.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "blocks.cuda.onnx").write_text("no graph")
    with pytest.raises(bundle.BundleError, match=r"blocks\.cuda\.onnx: expected a graph that runs"):
        open_lowered(bundle.Bundle(tmp_path, with_cuda.manifest))


def test_weights_that_do_not_fit_the_device_are_one_clear_refusal(with_cuda, monkeypatch):
    def out_of_memory(steps, array):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1024\nat line 1")

    monkeypatch.setattr(Steps, "put", out_of_memory)
    with pytest.raises(bundle.BundleError, match=r"room for about [\d,]+ bytes .* --device cpu$"):
        open_lowered(with_cuda)


def test_sessions_of_cuda_use_the_graphs_and_those_of_the_cpu_do_not(with_cuda, cpu):
    hidden = np.random.default_rng(0).normal(size=(3, MODEL.hidden_size)).astype(np.float32)
    expected = reference.log_probs(MODEL, hidden)
    on_cuda = open_sessions(with_cuda, PRETEND_CUDA)
    assert all(session.lowered for session in on_cuda.values())
    assert not any(session.on_cpu or session.kernel for session in on_cuda.values())
    np.testing.assert_allclose(on_cuda["log_probs"].run({"hidden": hidden})[0], expected, atol=1e-5)
    on_cpu = open_sessions(with_cuda, cpu)
    assert not any(session.lowered for session in on_cpu.values())


@pytest.mark.usefixtures("cpu")
def test_a_bundle_without_the_graphs_runs_as_before_on_cuda(without_cuda):
    sessions = open_sessions(without_cuda, PRETEND_CUDA)
    assert not any(session.lowered for session in sessions.values())


@pytest.mark.usefixtures("cpu")
def test_all_tasks_share_one_copy_of_the_weights(with_cuda):
    lowered = open_lowered(with_cuda, PRETEND_CUDA)
    assert len({id(task.steps) for task in lowered.values()}) == 1


@pytest.mark.usefixtures("cpu")
def test_a_run_that_is_stopped_ends_before_its_next_graph(with_cuda):
    session = open_sessions(with_cuda, PRETEND_CUDA)["log_probs"]
    options = RunOptions()
    options.terminate = True
    feeds = {"hidden": np.zeros((1, MODEL.hidden_size), np.float32)}
    with pytest.raises(Exception, match="stopped between two runs"):
        session.run(feeds, options)
    options.terminate = False
    assert session.run(feeds, options)[0].shape == (1, 18)
    assert isinstance(options.stop, StopFlag)
