"""Turns a batch of rows into one run of a graph.

A `GraphRunner` runs it: ONNX Runtime sessions of this process, the service's engine, or a remote
server.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hsoftmax.bundle import Graph
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.seeded_noise import noise

from .choices import MAX_SEED
from .row_batch import RowBatch
from .task import TargetShape, Task, graph_for_task


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One run of a bundle's graph.

    Attributes:
        positions: positions in the batch of the rows that are in `hidden`
        row, target: the pairs of `target_log_prob`, with `row` an index into `hidden`
        seed, first_row: `sample`: the seed of the batch, and the number of the first row in it
    """

    graph: str
    task: Task
    positions: Int64
    hidden: Float32
    row: Int64
    target: Int64
    seed: int
    first_row: int = 0


GraphRunner = Callable[[GraphRequest], list[Array]]


def build_graph_request(
    rows: RowBatch, task: Task, target_shape: TargetShape, first_row: int
) -> GraphRequest | None:
    """Builds the request for a batch whose first row has the number `first_row`.

    Returns None if no row needs the graph.
    """
    graph = graph_for_task(task, target_shape)
    needed = np.ones(len(rows), dtype=np.bool_)
    needed[list(rows.row_errors)] = False
    if graph == "target_log_prob":
        needed &= rows.counts > 0
    if not needed.any():
        return None
    # Every row takes its share of the noise, so a row's draw does not depend on others' errors.
    kept = np.flatnonzero(needed) if graph != "sample" else np.arange(len(rows))
    return GraphRequest(
        graph=graph,
        task=task,
        positions=kept,
        hidden=rows.hidden if len(kept) == len(rows) else rows.hidden[kept],
        row=np.repeat(np.arange(len(kept)), rows.counts[kept]),
        target=rows.target,
        seed=_batch_seed(task.seed, first_row),
    )


def needs_graph(request: GraphRequest) -> bool:
    """Returns False for the task `hidden`, which gives the rows' hidden states as they are."""
    return request.graph != "hidden"


def halves(request: GraphRequest) -> tuple[GraphRequest, GraphRequest]:
    """Returns the requests of the first and of the second half of the rows."""
    middle = len(request.hidden) // 2
    return _part(request, 0, middle), _part(request, middle, len(request.hidden))


def _part(request: GraphRequest, start: int, stop: int) -> GraphRequest:
    pairs = (start <= request.row) & (request.row < stop)
    return replace(
        request,
        positions=request.positions[start:stop],
        hidden=request.hidden[start:stop],
        row=request.row[pairs] - start,
        target=request.target[pairs],
        first_row=request.first_row + start,
    )


def graph_inputs(request: GraphRequest, graph: Graph) -> dict[str, Array]:
    """Returns the graph's inputs by name."""
    task, hidden = request.task, request.hidden
    match request.graph:
        case "target_log_prob":
            return {"hidden": hidden, "row": request.row, "target": request.target}
        case "top_k":
            limit = np.array([task.max_blocks])
            return {"hidden": hidden, "k": np.array([task.k]), "max_blocks": limit}
        case "sample":
            shape = (len(hidden), task.num_samples, graph.noise_per_sample)
            skip = request.first_row * task.num_samples * graph.noise_per_sample
            return {"hidden": hidden, "noise": noise(request.seed, *shape, skip=skip)}
        case _:
            return {"hidden": hidden}


def outputs_by_name(outputs: list[Array], request: GraphRequest) -> Mapping[str, Array]:
    """Returns a graph's outputs by name."""
    return dict(zip(_OUTPUTS[request.graph], outputs, strict=True))


_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "target_log_prob": ("log_prob",),
    "log_probs": ("log_prob",),
    "top_k": ("log_prob", "target", "blocks", "exact"),
    "sample": ("target", "log_prob"),
    "hidden": ("hidden",),
}


def _batch_seed(seed: int, first_row: int) -> int:
    """Derives a batch's own seed. The service derives the same one, and draws the same targets."""
    mixed = np.random.SeedSequence([seed, first_row]).generate_state(1, np.uint64)[0]
    return int(mixed) & MAX_SEED
