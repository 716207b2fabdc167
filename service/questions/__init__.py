"""The questions that can be put to a bundle: POST /v1/models/{name}/<question>."""

from .block_dot import BLOCK_DOT
from .clusters import CLUSTERS
from .probabilities import PROBABILITIES
from .question import Matrix, Plan, Question
from .sample import SAMPLE
from .topk import TOPK

QUESTIONS: tuple[Question, ...] = (PROBABILITIES, TOPK, CLUSTERS, SAMPLE, BLOCK_DOT)

__all__ = ["QUESTIONS", "Matrix", "Plan", "Question"]
