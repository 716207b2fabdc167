"""From rows to one run of a graph: what is asked, apart from who answers it.

Whoever runs graphs is a `Run`: sessions of one's own, an engine, or a server elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.bundle import Graph
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.sampling import noise

from .row_batch import RowBatch
from .task import MAX_SEED, TargetShape, Task, graph_for_task


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One run of a bundle's graph; `positions` are the chunk's rows that it is about."""

    graph: str
    task: Task
    positions: Int64
    hidden: Float32
    row: Int64
    target: Int64
    seed: int


GraphRunner = Callable[[GraphRequest], list[Array]]


def build_graph_request(
    rows: RowBatch, task: Task, target_shape: TargetShape, first_row: int
) -> GraphRequest | None:
    """What to run for a chunk whose first row is number `first_row`; None if there is nothing."""
    graph = graph_for_task(task, target_shape)
    answerable = np.ones(len(rows), dtype=np.bool_)
    answerable[list(rows.row_errors)] = False
    if graph == "target_log_prob":
        answerable &= rows.counts > 0
    if not answerable.any():
        return None
    # Every row takes its share of the noise, so that a draw does not depend on others' flaws.
    kept = np.flatnonzero(answerable) if graph != "sample" else np.arange(len(rows))
    return GraphRequest(
        graph=graph,
        task=task,
        positions=kept,
        hidden=rows.hidden if len(kept) == len(rows) else rows.hidden[kept],
        row=np.repeat(np.arange(len(kept)), rows.counts[kept]),
        target=rows.target,
        seed=_seed(task.seed, first_row),
    )


def graph_inputs(request: GraphRequest, graph: Graph) -> dict[str, Array]:
    """The inputs of the bundle's graph."""
    task, hidden = request.task, request.hidden
    match request.graph:
        case "target_log_prob":
            return {"hidden": hidden, "row": request.row, "target": request.target}
        case "top_k":
            limit = np.array([task.max_blocks])
            return {"hidden": hidden, "k": np.array([task.k]), "max_blocks": limit}
        case "sample":
            shape = (len(hidden), task.num_samples, graph.noise_per_sample)
            return {"hidden": hidden, "noise": noise(request.seed, *shape)}
        case _:
            return {"hidden": hidden}


def outputs_by_name(outputs: list[Array], request: GraphRequest) -> Mapping[str, Array]:
    """A graph's outputs by name."""
    return dict(zip(_OUTPUTS[request.graph], outputs, strict=True))


_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "target_log_prob": ("log_prob",),
    "log_probs": ("log_prob",),
    "top_k": ("log_prob", "target", "blocks", "exact"),
    "sample": ("target", "log_prob"),
}


def _seed(seed: int, first_row: int) -> int:
    """A chunk's own seed: the service draws the same targets from it."""
    mixed = np.random.SeedSequence([seed, first_row]).generate_state(1, np.uint64)[0]
    return int(mixed) & MAX_SEED
