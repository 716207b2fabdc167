"""The operations on a bundle: POST /v1/models/{name}/<operation>."""

from hsoftmax.service.inference.operation import MatrixResult, Operation, Plan

from .block_dot import BLOCK_DOT
from .children import CHILDREN
from .clusters import CLUSTERS
from .probabilities import PROBABILITIES
from .sample import SAMPLE
from .top_k import TOP_K

OPERATIONS: tuple[Operation, ...] = (
    PROBABILITIES, TOP_K, CLUSTERS, CHILDREN, SAMPLE, BLOCK_DOT,
)  # fmt: skip

__all__ = ["OPERATIONS", "MatrixResult", "Operation", "Plan"]
