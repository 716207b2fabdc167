"""Compares every task of a bundle with the stored reference numbers, again and again, at once."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.cuda import MAX_BYTES, Steps, open_lowered_tasks
from hsoftmax.runtime.device_runs import DeviceRuns
from hsoftmax.runtime.devices import DENSE_TASKS

from .bundles import StoredBundle
from .device import CheckedDevice
from .table import Table

_MIN_ROOM = 20_000  # bytes of a run's temporary arrays: room for a few small blocks
_BLOCKS_OF_SMALL_ROOM = 8  # about this part of the weights
_NUM_PAIRS, _NUM_SAMPLES, _K = 200, 16, 10

Run = Callable[[Mapping[str, Array]], list[Array]]
_Case = Mapping[str, Array]


@dataclass(frozen=True)
class Repeats:
    """Number of runs of each task, and of threads that run it at a time."""

    count: int = 20
    threads: int = 8


@dataclass(frozen=True)
class _Task:
    """A task, how it is computed, and the function that does."""

    name: str
    how: str
    run: Run


def check_bundle(
    bundle: StoredBundle, device: CheckedDevice, repeats: Repeats, table: Table
) -> None:
    """Add a row for each task and each way to compute it."""
    for task in _tasks(bundle, device):
        if table.is_late:
            table.leave_out(bundle.name, task.name)
            continue
        started = time.perf_counter()
        try:
            error = max(_errors(bundle, task, repeats))
            text, ok = f"{error:.2f} of tolerance", error <= 1
        except Exception as raised:
            text, ok = f"{type(raised).__name__}: {str(raised).splitlines()[0][:160]}", False
        seconds = f"{time.perf_counter() - started:.1f} s"
        verdict = "right" if ok else "WRONG"
        table.row(bundle.name, task.name, verdict, f"{text}, {task.how}, {seconds}", ok=ok)


def _tasks(bundle: StoredBundle, device: CheckedDevice) -> Iterator[_Task]:
    """Yield the graphs for CUDA with little room and with much, and those that are portable."""
    sessions = device.open_all(bundle.lowered_graphs)
    small = max(_MIN_ROOM, bundle.weight_bytes // _BLOCKS_OF_SMALL_ROOM)
    for how, room in (("small runs", small), ("large runs", MAX_BYTES)):
        steps = Steps(sessions, device.name, room)
        lowered = open_lowered_tasks(bundle.model, bundle.tensors, steps)
        for task in bundle.lowered_tasks:
            yield _Task(task, how, lowered[task])
    for task in [] if bundle.rounds_hidden else bundle.tasks:
        on_device = task in DENSE_TASKS
        if on_device or task not in bundle.lowered_tasks:
            session = device.open(bundle.portable_graph(task), on_device=on_device)
            names = [output.name for output in session.get_outputs()]
            runs = DeviceRuns(session)
            how = f"portable graph on {device.name if on_device else 'cpu'}"
            yield _Task(task, how, lambda feeds, runs=runs, names=names: runs.run(names, feeds))


def _errors(bundle: StoredBundle, task: _Task, repeats: Repeats) -> Iterator[float]:
    """Yield the error of each repeat of each case, as a part of its tolerance."""
    compare = _COMPARISONS[task.name]
    noise = bundle.noise_per_sample() if task.name == "sample" else 0
    with ThreadPoolExecutor(repeats.threads) as pool:
        for case in bundle.cases.values():

            def once(seed: int, case: _Case = case) -> float:
                return compare(task.run, case, np.random.default_rng(seed), noise)

            for error in pool.map(once, range(repeats.count)):
                yield error / float(case["tolerance"])


def _largest(actual: Array, expected: Array) -> float:
    """Return the largest difference; infinity for a NaN or an infinity on one side."""
    with np.errstate(invalid="ignore"):
        difference = np.where(actual == expected, 0.0, np.abs(actual.astype(float) - expected))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def _log_probs(run: Run, case: _Case, _: np.random.Generator, __: int) -> float:
    return _largest(run({"hidden": case["hidden"]})[0], case["log_probs"])


def _cluster_log_probs(run: Run, case: _Case, _: np.random.Generator, __: int) -> float:
    return _largest(run({"hidden": case["hidden"]})[0], case["cluster_log_probs"])


def _target_log_prob(run: Run, case: _Case, rng: np.random.Generator, _: int) -> float:
    rows, targets = case["log_probs"].shape
    row, target = rng.integers(0, rows, _NUM_PAIRS), rng.integers(0, targets, _NUM_PAIRS)
    target[: _NUM_PAIRS // 2] = rng.integers(0, targets)  # half of the pairs ask for one
    got = run({"hidden": case["hidden"], "row": row, "target": target})[0]
    return _largest(got, case["log_probs"][row, target])


def _top_k(run: Run, case: _Case, _: np.random.Generator, __: int) -> float:
    """Compare the k values, the log p of the returned targets, and the proof."""
    expected = case["log_probs"]
    k = min(_K, expected.shape[1])
    limits = {"k": np.array([k]), "max_blocks": np.array([0])}
    log_prob, target, _blocks, exact = run({"hidden": case["hidden"], **limits})
    if not exact.all() or (np.diff(np.sort(target, axis=1)) == 0).any():
        return np.inf
    best = -np.sort(-expected, axis=1)[:, :k]
    returned = np.take_along_axis(expected, target, axis=1)
    return max(_largest(log_prob, best), _largest(log_prob, returned))


def _sample(run: Run, case: _Case, rng: np.random.Generator, noise: int) -> float:
    """Compare the log p of the drawn targets."""
    shape = (len(case["hidden"]), _NUM_SAMPLES, noise)
    uniform = rng.random(shape, dtype=np.float32)
    target, log_prob = run({"hidden": case["hidden"], "noise": uniform})
    return _largest(log_prob, np.take_along_axis(case["log_probs"], target, axis=1))


def _block_dot(run: Run, case: _Case, _: np.random.Generator, __: int) -> float:
    feeds = {name: case[name] for name in ("h", "input_index", "output_index")}
    return _largest(run(feeds)[0], case["output"])


_COMPARISONS: Mapping[str, Callable[[Run, _Case, np.random.Generator, int], float]] = {
    "log_probs": _log_probs,
    "cluster_log_probs": _cluster_log_probs,
    "target_log_prob": _target_log_prob,
    "top_k": _top_k,
    "sample": _sample,
    "block_dot": _block_dot,
}
