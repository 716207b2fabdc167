"""Tests of `--gpu-memory`: its parts, what is refused, and what falls back to the CPU."""

import gc

import numpy as np
import onnxruntime as ort
import pytest

from hsoftmax import bundle, exporter, models
from hsoftmax.runtime import sessions
from hsoftmax.runtime.device_memory import DeviceMemory, DeviceMemoryError
from hsoftmax.runtime.devices import CPU, CUDA, DENSE_TASKS, ON_CPU, ON_CUDA, Device, DeviceError
from hsoftmax.runtime.sessions import device_choice

GIB = 1 << 30


def exported(folder, *, cuda: bool) -> bundle.Bundle:
    """Export a bundle of 20 targets in 4 blocks."""
    rng = np.random.default_rng(0)
    arrays = (rng.normal(size=shape) for shape in ((5, 4), (4,), (4, 5, 5), (4, 5)))
    to = exporter.parse_destination(folder / "small" / "1")
    return exporter.export_model(models.from_theano(*arrays, num_targets=20), to, cuda=cuda)


WEIGHT_BYTES = 604  # of its tensors as float32


def device_with(weight_bytes: int, *, fallback: Device | None = None) -> Device:
    """Return a device with room for so many bytes of weights; its sessions run on the CPU."""
    memory = DeviceMemory(-(-weight_bytes * 4 // 3))
    return Device("cuda", (CPU,), memory=memory, fallback=fallback)


class Owner:
    """Holds weights."""


@pytest.mark.parametrize(("limit", "run_bytes"), [(4000, 1000), (80 * GIB, 2 * GIB)])
def test_a_quarter_of_the_memory_is_for_runs_up_to_two_gib(limit, run_bytes):
    memory = DeviceMemory(limit)
    assert (memory.run_bytes, memory.free_bytes) == (run_bytes, limit - run_bytes)


def test_weights_are_counted_until_their_owner_is_freed():
    memory, first, second = DeviceMemory(4000), Owner(), Owner()
    memory.reserve(2000, first)
    with pytest.raises(DeviceMemoryError, match=r"at most 1,000 bytes .* 4,000 leaves, got 1,001"):
        memory.reserve(1001, second)
    memory.reserve(1000, second)
    del first
    assert memory.free_bytes == 2000


@pytest.fixture
def opened_options(monkeypatch):
    """Open CUDA sessions on the CPU, and return the options of each."""
    original, made = ort.InferenceSession, []

    def open_on_cpu(path, options, providers):
        if providers != [CPU]:
            made.append(options)
            options = ort.SessionOptions()
            options.use_per_session_threads = False
        return original(path, options, providers=[CPU])

    monkeypatch.setattr(ort, "InferenceSession", open_on_cpu)
    return made


def test_a_bundle_plans_its_runs_within_the_part_for_runs_and_returns_its_weights(tmp_path):
    opened = exported(tmp_path, cuda=True)
    sessions.choose_device("cpu", 1)
    device = device_with(2 * WEIGHT_BYTES)
    free = device.memory.free_bytes
    served = sessions.open_sessions(opened, device)
    assert device.memory.free_bytes == free - WEIGHT_BYTES
    steps = served["log_probs"].lowered.steps
    assert steps.max_bytes == device.memory.run_bytes // 2
    assert steps.lock is device.lock
    hidden = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    whole = sessions.open_sessions(opened, ON_CPU)["log_probs"].run({"hidden": hidden})
    np.testing.assert_allclose(served["log_probs"].run({"hidden": hidden}), whole, atol=1e-5)
    del served, steps
    gc.collect()
    assert device.memory.free_bytes == free


def test_weights_beyond_the_bound_are_refused_or_go_to_the_cpu_with_the_reason(tmp_path):
    opened = exported(tmp_path, cuda=True)
    sessions.choose_device("cpu", 1)

    def open_on(device):
        return device, sessions.open_sessions(opened, device)

    with pytest.raises(sessions.OutOfDeviceMemory, match=r"got 604: raise it, or .* --device cpu$"):
        sessions.with_fallback(device_with(WEIGHT_BYTES - 1), open_on)
    device = device_with(WEIGHT_BYTES - 1, fallback=ON_CPU)
    used, served = sessions.with_fallback(device, open_on)
    assert used.name == "cpu"
    assert used.fallback_cause == "out_of_memory"
    assert "at most 603 bytes of weights" in used.fallback_reason
    assert {session.device for session in served.values()} == {"cpu"}


def test_portable_graphs_on_the_device_share_the_arena_and_count_their_weights(
    tmp_path, opened_options
):
    opened = exported(tmp_path, cuda=False)
    sessions.choose_device("cpu", 1)
    memory = DeviceMemory(4 * GIB)
    device = Device("cuda", ON_CUDA.providers, memory=memory)
    served = sessions.open_sessions(opened, device)
    entries = ("session.use_env_allocators", "session.use_device_allocator_for_initializers")
    for options in opened_options:
        assert [options.get_session_config_entry(entry) for entry in entries] == ["1", "1"]
    assert len(opened_options) == len(DENSE_TASKS)
    used = memory.limit - memory.run_bytes - memory.free_bytes
    assert WEIGHT_BYTES < used <= 2 * WEIGHT_BYTES
    for task in DENSE_TASKS:
        assert served[task].device_runs.max_elements == GIB // 32
        assert served[task].device_runs.lock is device.lock


def test_the_first_run_out_of_memory_is_a_refusal_too(tmp_path, monkeypatch):
    opened = exported(tmp_path, cuda=True)
    sessions.choose_device("cpu", 1)

    def run(steps, name, feeds):
        raise RuntimeError("Available memory of 0 is smaller than requested bytes of 8000000")

    monkeypatch.setattr("hsoftmax.runtime.cuda.Steps.run", run)
    with pytest.raises(sessions.OutOfDeviceMemory, match=r"expected room .* --device cpu$"):
        sessions.open_sessions(opened, device_with(2 * WEIGHT_BYTES))


@pytest.fixture
def arena(monkeypatch):
    """Fake an ONNX Runtime with CUDA; return the bytes of each arena, and a list of failures."""
    made, failures = [], []

    def create(num_bytes):
        for error in failures:
            raise error
        made.append(num_bytes)

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(device_choice, "opened_providers", lambda providers: [CUDA, CPU])
    monkeypatch.setattr(device_choice, "create_shared_arena", create)
    return made, failures


def test_the_arena_and_the_provider_get_the_part_for_runs(arena):
    device = sessions.choose_device("cuda", 1, gpu_memory=4 * GIB)
    assert arena[0] == [GIB]
    name, options = device.providers[0]
    assert (name, options["gpu_mem_limit"]) == (CUDA, str(GIB))
    assert (device.memory.limit, device.fallback) == (4 * GIB, None)


def test_without_a_bound_there_is_no_arena_for_all(arena):
    device = sessions.choose_device("auto", 1)
    assert (arena[0], device.memory, device.providers) == ([], None, ON_CUDA.providers)
    assert device.fallback is not None
    assert device.fallback.name == "cpu"


def test_an_arena_that_cannot_be_made_is_an_error_or_the_cpu_with_the_reason(arena):
    arena[1].append(RuntimeError("no arena of that size\nat line 1"))
    with pytest.raises(DeviceError, match=r"expected cuda, got none: no arena of that size$"):
        sessions.choose_device("cuda", 1, gpu_memory=4 * GIB)
    device = sessions.choose_device("auto", 1, gpu_memory=4 * GIB)
    assert (device.name, device.fallback_cause) == ("cpu", "cuda_unavailable")
    assert device.fallback_reason == "no arena of that size"
