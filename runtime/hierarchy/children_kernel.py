"""The task `children`, which the engine runs as it runs the tasks of a bundle's graphs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hsoftmax.bundle import Graph, Port
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.native import StopFlag
from hsoftmax.runtime.sessions import Session

from .nodes import Hierarchy

CHILDREN = "children"  # the name of the task
WHOLE_TREE = -1  # in place of the number of a node


@dataclass(frozen=True)
class ChildrenKernel:
    """Computes hidden [batch, hidden_size], node [1] -> log_probs [batch, path + children].

    The path begins with the whole tree, of log-probability 0, and ends with the node.
    """

    hierarchy: Hierarchy

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Compute the task. Raises InterruptedError if `stop` was set."""

        def expect_running() -> None:
            if stop is not None and stop.is_set:
                raise InterruptedError("the run was stopped")

        number = int(feeds["node"][0])
        node = None if number == WHOLE_TREE else number
        with np.errstate(all="ignore"):  # the caller checks for an overflow
            both = self.hierarchy.log_probs(feeds["hidden"], node, expect_running)
            return [np.concatenate(both, axis=1).astype(np.float32)]


def children_session(hierarchy: Hierarchy, of: Session, hidden_size: int) -> Session:
    """Return the session of the task beside another session of the same bundle."""
    graph = Graph(
        file=of.graph.file,
        inputs=(
            Port(name="hidden", dtype="float32", shape=("batch", hidden_size)),
            Port(name="node", dtype="int64", shape=(1,)),
        ),
        outputs=(Port(name="log_probs", dtype="float32", shape=("batch", "nodes")),),
    )
    return replace(
        of, task=CHILDREN, graph=graph, kernel=ChildrenKernel(hierarchy), on_cpu=True,
        device_runs=None, lowered=None,
    )  # fmt: skip
