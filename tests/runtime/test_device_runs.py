"""Tests of graphs on a device: one run at a time, rows in slices, buffers that are not reused."""

import threading
import time
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from hsoftmax import exporter, models
from hsoftmax.bundle import open_bundle
from hsoftmax.runtime import sessions
from hsoftmax.runtime.device_runs import DeviceRuns
from hsoftmax.runtime.devices import CPU, DENSE_TASKS, ON_CPU, ON_CUDA

FLAT = {"hidden": np.arange(20, dtype=np.float32).reshape(10, 2)}


class DoublingRuntime:
    """Doubles `hidden`, and records the rows of each run and the most runs at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.rows: list[int] = []
        self.most_at_once = self._running = 0
        self._seconds = seconds

    def run(self, names, feeds, options):
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        time.sleep(self._seconds)
        self.rows.append(len(feeds["hidden"]))
        self._running -= 1
        return [feeds["hidden"] * 2]


def test_runs_of_one_session_follow_each_other():
    runtime = DoublingRuntime(0.02)
    runs = DeviceRuns(runtime)
    threads = [threading.Thread(target=runs.run, args=(["y"], FLAT)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(runtime.rows), runtime.most_at_once) == (5, 1)


@pytest.mark.parametrize(
    ("row_elements", "rows"), [(0, [10]), (10, [10]), (25, [4, 4, 2]), (60, [1] * 10)]
)
def test_rows_are_sliced_so_that_no_tensor_exceeds_the_limit(row_elements, rows):
    """A single row runs even if it exceeds the limit: it cannot be divided."""
    runtime = DoublingRuntime()
    runs = DeviceRuns(runtime, row_elements, max_elements=100)
    np.testing.assert_array_equal(runs.run(["y"], FLAT)[0], FLAT["hidden"] * 2)
    assert runtime.rows == rows


def test_the_limit_is_below_2_to_the_31():
    assert DeviceRuns(DoublingRuntime()).max_elements < 2**31


@pytest.fixture
def opened(tmp_path):
    """Export a bundle of 6 targets in 8 rows of the last level."""
    model = models.from_theano(
        *(np.random.default_rng(0).normal(size=s) for s in ((5, 2), (2,), (2, 5, 4), (2, 4))),
        num_targets=6,
    )
    to = exporter.parse_destination(tmp_path / "small" / "1")
    exporter.export_model(model, to)
    return open_bundle(to.path)


@pytest.fixture
def opened_options(monkeypatch):
    """Open CUDA sessions on the CPU, and return the options of each by its providers."""
    original, made = ort.InferenceSession, []

    def open_on_cpu(path, options, providers):
        made.append((providers, options))
        return original(path, options, providers=[CPU])

    monkeypatch.setattr(ort, "InferenceSession", open_on_cpu)
    return made


def test_sessions_on_cuda_use_no_buffer_twice(opened, opened_options):
    sessions.choose_device("cpu", 1)
    for device in (ON_CPU, ON_CUDA):
        opened_options.clear()
        sessions.open_sessions(opened, device)
        used_again = {o.enable_mem_reuse for p, o in opened_options if p != [CPU]}
        assert used_again == (set() if device is ON_CPU else {False})
        assert all(o.enable_mem_reuse for p, o in opened_options if p == [CPU])


def test_only_sessions_on_a_device_run_in_turns_and_in_slices(opened, opened_options):
    sessions.choose_device("cpu", 1)
    on_cuda = sessions.open_sessions(opened, ON_CUDA)
    assert {task for task, session in on_cuda.items() if session.device_runs} == DENSE_TASKS
    for task in DENSE_TASKS:
        runs = on_cuda[task].device_runs
        assert runs.row_elements == 8  # of the last level, more than the 6 targets
        hidden = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
        sliced = replace(on_cuda[task], device_runs=replace(runs, max_elements=16))
        expected = on_cuda[task].run({"hidden": hidden})
        np.testing.assert_allclose(sliced.run({"hidden": hidden}), expected, rtol=1e-6)
    assert not any(s.device_runs for s in sessions.open_sessions(opened, ON_CPU).values())
