"""Times the tasks of a two-level model, against the card's copy bandwidth and against PyTorch."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from hsoftmax import models
from hsoftmax.models import HierarchicalSoftmax, Level
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.cuda import MAX_BYTES, Steps, open_lowered_tasks

from .device import CheckedDevice
from .table import Table

_MIN_RUNS, _MAX_RUNS = 3, 300
_MAX_DENSE_ROWS = 128  # of whole distributions and of top-k

_Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Shape:
    """The model that is timed, the rows of a call, and the seconds to repeat it for."""

    clusters: int
    block: int
    hidden: int
    batches: tuple[int, ...]
    seconds: float


def copy_bandwidth(device: CheckedDevice, graph: Path, numbers: int, seconds: float) -> float:
    """Return the bytes a second of y = -x on the device, read and written."""
    session = device.open(graph)
    binding = session.io_binding()
    x = ort.OrtValue.ortvalue_from_numpy(np.zeros(numbers, np.float32), device.name, 0)
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", device.name)
    return 8 * numbers / _median(lambda: session.run_with_iobinding(binding), seconds)


def time_tasks(
    shape: Shape, graphs: list[Path], device: CheckedDevice, bandwidth: float, table: Table
) -> None:
    """Add a row for each task and number of rows."""
    model = _model(shape)
    steps = Steps(device.open_all(graphs), device.name, MAX_BYTES)
    tasks = open_lowered_tasks(model, {}, steps)
    torch_tasks = _torch_tasks(model, device)
    for task, feeds in _calls(shape):
        rows, label = len(feeds["hidden"]), f"{shape.clusters} x {shape.block} x {shape.hidden}"
        if table.is_late:
            table.leave_out(label, task)
            continue
        seconds = _median(lambda task=task, feeds=feeds: tasks[task](feeds), shape.seconds)
        share = _ideal_bytes(shape, task, feeds) / seconds / bandwidth
        notes = [f"{rows} rows", f"{share:.1%} of copy bandwidth"]
        if task in torch_tasks:
            of_torch = _median(
                lambda task=task, feeds=feeds: torch_tasks[task](feeds), shape.seconds
            )
            notes.append(f"x PyTorch {of_torch / seconds:.2f}")
        table.row(label, task, f"{1e3 * seconds:.3f} ms", ", ".join(notes))


def _model(shape: Shape) -> HierarchicalSoftmax:
    """Return random weights; clusters are peaked, so that top-k has something to prove."""
    rng = np.random.default_rng(0)
    sizes = ((1, shape.clusters, 6.0), (shape.clusters, shape.block, 1.0))
    levels = []
    for blocks, rows, scale in sizes:
        weight = rng.standard_normal((blocks * rows, shape.hidden), dtype=np.float32)
        weight *= np.float32(scale / shape.hidden**0.5)
        bias = np.zeros(len(weight), np.float32)
        levels.append(Level(weight, bias, np.arange(blocks + 1) * rows))
    total = shape.clusters * shape.block
    return models.hierarchical_softmax.build(tuple(levels), num_targets=total)


def _calls(shape: Shape) -> Iterator[tuple[str, _Feeds]]:
    rng = np.random.default_rng(1)
    for rows in shape.batches:
        hidden = rng.standard_normal((rows, shape.hidden), dtype=np.float32)
        target = rng.integers(0, shape.clusters * shape.block, rows)
        yield "target_log_prob", {"hidden": hidden, "row": np.arange(rows), "target": target}
        yield "cluster_log_probs", {"hidden": hidden}
        yield "sample", {"hidden": hidden, "noise": rng.random((rows, 1, 2), dtype=np.float32)}
        if rows <= _MAX_DENSE_ROWS:
            limits = {"k": np.array([10]), "max_blocks": np.array([0])}
            yield "top_k", {"hidden": hidden, **limits}
            yield "log_probs", {"hidden": hidden}


def _ideal_bytes(shape: Shape, task: str, feeds: _Feeds) -> int:
    """Return the bytes of the weights that a task needs, each read once."""
    row_bytes, top = shape.hidden * 4, shape.clusters
    match task:
        case "target_log_prob":
            blocks = len(np.unique(feeds["target"] // shape.block))
        case "cluster_log_probs":
            blocks = 0
        case "log_probs":
            blocks = shape.clusters
        case _:  # at least one block for each row, and all at most
            blocks = min(len(feeds["hidden"]), shape.clusters)
    return row_bytes * (top + blocks * shape.block)


def _median(call: Callable[[], object], budget: float) -> float:
    """Return the median seconds of a call, after one that is not counted."""
    call()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < _MIN_RUNS or (time.perf_counter() < end and len(times) < _MAX_RUNS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _torch_tasks(
    model: HierarchicalSoftmax, device: CheckedDevice
) -> Mapping[str, Callable[[_Feeds], object]]:
    """Return target_log_prob as PyTorch computes it, if it is there: gather, then bmm."""
    if find_spec("torch") is None:
        return {}
    torch: Any = import_module("torch")
    top, last = model.levels
    clusters, bias = (torch.from_numpy(a).to(device.name) for a in (top.weight, top.bias))
    blocks = (
        torch.from_numpy(last.weight).to(device.name).view(len(top.bias), -1, model.hidden_size)
    )
    blocks_bias = torch.from_numpy(last.bias).to(device.name).view(len(top.bias), -1)

    def target_log_prob(feeds: _Feeds) -> object:
        with torch.inference_mode():
            hidden = torch.from_numpy(feeds["hidden"]).to(device.name)
            target = torch.from_numpy(feeds["target"]).to(device.name)
            cluster, position = target // blocks.shape[1], target % blocks.shape[1]
            scores = torch.bmm(blocks[cluster], hidden[:, :, None])[:, :, 0] + blocks_bias[cluster]
            inside = torch.log_softmax(scores, 1).gather(1, position[:, None])
            outer = torch.log_softmax(torch.addmm(bias, hidden, clusters.T), 1)
            return (outer.gather(1, cluster[:, None]) + inside).cpu()

    return {"target_log_prob": target_log_prob}
