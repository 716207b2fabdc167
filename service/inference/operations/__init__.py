"""The questions that can be put to a bundle: POST /v1/models/{name}/<question>."""

from hsoftmax.service.inference.operation import Matrix, Plan, Question

from .block_dot import BLOCK_DOT
from .clusters import CLUSTERS
from .probabilities import PROBABILITIES
from .sample import SAMPLE
from .top_k import TOPK

QUESTIONS: tuple[Question, ...] = (PROBABILITIES, TOPK, CLUSTERS, SAMPLE, BLOCK_DOT)

__all__ = ["QUESTIONS", "Matrix", "Plan", "Question"]
