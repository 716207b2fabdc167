"""The operations on a bundle: POST /v1/models/{name}/<operation>."""

from hsoftmax.service.inference.operation import MatrixResult, Operation, Plan

from .block_dot import BLOCK_DOT
from .clusters import CLUSTERS
from .probabilities import PROBABILITIES
from .sample import SAMPLE
from .top_k import TOP_K

OPERATIONS: tuple[Operation, ...] = (PROBABILITIES, TOP_K, CLUSTERS, SAMPLE, BLOCK_DOT)

__all__ = ["OPERATIONS", "MatrixResult", "Operation", "Plan"]
