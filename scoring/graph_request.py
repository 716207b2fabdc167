"""From rows to one run of a graph: what is asked, apart from who answers it.

Whoever runs graphs is a `Run`: sessions of one's own, an engine, or a server elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.bundle import Graph
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.sampling import noise

from .choices import LARGEST_SEED
from .row_batch import Rows
from .task import Form, Task, graph_of


@dataclass(frozen=True, slots=True)
class Asked:
    """One run of a bundle's graph; `positions` are the chunk's rows that it is about."""

    graph: str
    task: Task
    positions: Int64
    hidden: Float32
    row: Int64
    target: Int64
    seed: int


Run = Callable[[Asked], list[Array]]


def ask(rows: Rows, task: Task, form: Form, first_row: int) -> Asked | None:
    """What to run for a chunk whose first row is number `first_row`; None if there is nothing."""
    graph = graph_of(task, form)
    answered = np.ones(len(rows), dtype=np.bool_)
    answered[list(rows.flaws)] = False
    if graph == "target_log_prob":
        answered &= rows.counts > 0
    if not answered.any():
        return None
    # Every row takes its share of the noise, so that a draw does not depend on others' flaws.
    kept = np.flatnonzero(answered) if graph != "sample" else np.arange(len(rows))
    return Asked(
        graph=graph,
        task=task,
        positions=kept,
        hidden=rows.hidden if len(kept) == len(rows) else rows.hidden[kept],
        row=np.repeat(np.arange(len(kept)), rows.counts[kept]),
        target=rows.target,
        seed=_seed(task.seed, first_row),
    )


def feeds(asked: Asked, graph: Graph) -> dict[str, Array]:
    """The inputs of the bundle's graph."""
    task, hidden = asked.task, asked.hidden
    match asked.graph:
        case "target_log_prob":
            return {"hidden": hidden, "row": asked.row, "target": asked.target}
        case "top_k":
            limit = np.array([task.max_blocks])
            return {"hidden": hidden, "k": np.array([task.k]), "max_blocks": limit}
        case "sample":
            shape = (len(hidden), task.num_samples, graph.noise_per_sample)
            return {"hidden": hidden, "noise": noise(asked.seed, *shape)}
        case _:
            return {"hidden": hidden}


def by_name(outputs: list[Array], asked: Asked) -> Mapping[str, Array]:
    """A graph's outputs by name."""
    return dict(zip(_OUTPUTS[asked.graph], outputs, strict=True))


_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "target_log_prob": ("log_prob",),
    "log_probs": ("log_prob",),
    "top_k": ("log_prob", "target", "blocks", "exact"),
    "sample": ("target", "log_prob"),
}


def _seed(seed: int, first_row: int) -> int:
    """A chunk's own seed: the service draws the same targets from it."""
    mixed = np.random.SeedSequence([seed, first_row]).generate_state(1, np.uint64)[0]
    return int(mixed) & LARGEST_SEED
