"""The queries of the demonstration, and the check of their results against the NumPy reference."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.client import Client
from hsoftmax.models.arrays import Float64

from .sample_model import SAMPLE_NAME, Sample

_SHOWN_ROWS = 3
_MAX_REQUEST_ROWS = 256
_ROUTE = f"/v1/models/{SAMPLE_NAME}"


@dataclass(frozen=True)
class WordPrediction:
    """The five likeliest next words of one context, and the word that truly came next."""

    context: str
    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    true_word: str
    true_probability: float


@dataclass(frozen=True)
class Comparison:
    """One figure as the service returned it, and as computed without the service."""

    name: str
    got: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.got - self.expected) <= self.tolerance


def query_sample(client: Client, sample: Sample, opened: bundle.Bundle) -> list[WordPrediction]:
    """Queries the service for the first few held-out positions."""
    hidden, target = (array[:_SHOWN_ROWS] for array in sample.heldout)
    labels = bundle.read_labels(opened)
    assert labels is not None
    likeliest = client.post(f"{_ROUTE}/top_k", {"inputs": hidden.tolist(), "k": 5})["results"]
    true_words = [labels[t] for t in target]
    true = client.post(
        f"{_ROUTE}/probabilities", {"inputs": hidden.tolist(), "targets": true_words}
    )["probabilities"]
    return [
        WordPrediction(
            context, tuple(best["labels"]), tuple(best["probabilities"]), word, probability
        )
        for context, best, word, probability in zip(
            sample.contexts, likeliest, true_words, true, strict=False
        )
    ]


def compare(
    client: Client, sample: Sample, opened: bundle.Bundle, answers: list[WordPrediction]
) -> Iterator[Comparison]:
    """Yields a comparison for each figure served, and for the perplexity of all held-out rows."""
    model = models.from_tensors(
        opened.manifest.family, bundle.load_tensors(opened), opened.manifest.attributes
    )
    labels = bundle.read_labels(opened)
    assert labels is not None
    full = np.exp(models.reference(model).log_probs(model, sample.heldout[0][:_SHOWN_ROWS]))
    for answer, probs in zip(answers, full, strict=True):
        yield from _compare_answer(answer, probs, labels)
    yield _compare_sum(client, sample)
    served = _perplexity(client, sample)
    yield Comparison("held-out perplexity", served, sample.perplexity, 1e-3 * sample.perplexity)


def _compare_answer(
    answer: WordPrediction, probs: Float64, labels: tuple[str, ...]
) -> Iterator[Comparison]:
    target_of_label = {label: target for target, label in enumerate(labels)}
    best = -np.sort(-probs)
    for rank, (word, got) in enumerate(zip(answer.words, answer.probabilities, strict=True)):
        yield Comparison(f"p({word})", got, float(probs[target_of_label[word]]), 1e-5 * got + 1e-9)
        yield Comparison(f"likeliest number {rank + 1}", got, float(best[rank]), 1e-5 * got + 1e-9)
    true = float(probs[target_of_label[answer.true_word]])
    yield Comparison(f"p({answer.true_word})", answer.true_probability, true, 1e-5 * true + 1e-9)


def _compare_sum(client: Client, sample: Sample) -> Comparison:
    body = {"inputs": sample.heldout[0][:1].tolist()}
    (probs,) = client.post(f"{_ROUTE}/probabilities", body)["probabilities"]
    return Comparison("sum of a full distribution", math.fsum(probs), 1.0, 1e-4)


def _perplexity(client: Client, sample: Sample) -> float:
    hidden, target = sample.heldout
    total = 0.0
    for start in range(0, len(target), _MAX_REQUEST_ROWS):
        rows = slice(start, start + _MAX_REQUEST_ROWS)
        body = {"inputs": hidden[rows].tolist(), "targets": target[rows].tolist(), "log": True}
        total += math.fsum(client.post(f"{_ROUTE}/probabilities", body)["log_probabilities"])
    return math.exp(-total / len(target))
