"""The questions that can be put to a bundle: POST /v1/models/{name}/<question>."""

from hsoftmax.service.inference.operation import MatrixResult, Operation, Plan

from .block_dot import BLOCK_DOT
from .clusters import CLUSTERS
from .probabilities import PROBABILITIES
from .sample import SAMPLE
from .top_k import TOPK

OPERATIONS: tuple[Operation, ...] = (PROBABILITIES, TOPK, CLUSTERS, SAMPLE, BLOCK_DOT)

__all__ = ["OPERATIONS", "MatrixResult", "Operation", "Plan"]
