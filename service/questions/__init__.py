"""The questions that can be put to a bundle: POST /v1/models/{name}/<question>."""

from .clusters import CLUSTERS
from .probabilities import PROBABILITIES
from .question import Plan, Question
from .sample import SAMPLE
from .topk import TOPK

QUESTIONS: tuple[Question, ...] = (PROBABILITIES, TOPK, CLUSTERS, SAMPLE)

__all__ = ["QUESTIONS", "Plan", "Question"]
