"""The queries of the demonstration, and the check of their results against a reference."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.client import Client
from hsoftmax.models.arrays import Float64
from hsoftmax.runtime.encoder import encode_texts, open_encoder

from .sample_model import SAMPLE_NAME, Sample

QUESTIONS = ("my fellow", "the state of the", "we the people of the united")

_SHOWN_WORDS = 5
_MAX_REQUEST_ROWS = 256
_ROUTE = f"/v1/models/{SAMPLE_NAME}"


@dataclass(frozen=True)
class WordPrediction:
    """The likeliest next words after a text."""

    text: str
    words: tuple[str, ...]
    probabilities: tuple[float, ...]


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


def query_sample(client: Client) -> list[WordPrediction]:
    """Asks the service for the likeliest next words after each question."""
    body = {"inputs": QUESTIONS, "k": _SHOWN_WORDS}
    results = client.post(f"{_ROUTE}/top_k", body)["results"]
    return [
        WordPrediction(text, tuple(best["labels"]), tuple(best["probabilities"]))
        for text, best in zip(QUESTIONS, results, strict=True)
    ]


def compare(
    client: Client, sample: Sample, opened: bundle.Bundle, answers: list[WordPrediction]
) -> Iterator[Comparison]:
    """Yields a comparison for each figure served, and for the perplexity of all held-out texts."""
    labels = bundle.read_labels(opened)
    assert labels is not None
    for answer, probs in zip(answers, _reference(opened), strict=True):
        yield from _compare_answer(answer, probs, labels)
    yield _compare_sum(client)
    served = _perplexity(client, sample)
    yield Comparison("held-out perplexity", served, sample.perplexity, 1e-3 * sample.perplexity)


def _reference(opened: bundle.Bundle) -> Float64:
    """Returns the distribution after each question: the encoder alone, then the head in NumPy."""
    encoder = open_encoder(opened)
    assert encoder is not None
    model = models.from_tensors(
        opened.manifest.family, bundle.load_tensors(opened), opened.manifest.attributes
    )
    hidden = encode_texts(encoder, QUESTIONS)
    probs: Float64 = np.exp(models.reference(model).log_probs(model, hidden))
    return probs


def _compare_answer(
    answer: WordPrediction, probs: Float64, labels: tuple[str, ...]
) -> Iterator[Comparison]:
    target_of_label = {label: target for target, label in enumerate(labels)}
    best = -np.sort(-probs)
    for rank, (word, got) in enumerate(zip(answer.words, answer.probabilities, strict=True)):
        tolerance = 1e-4 * got + 1e-9  # a batch of the encoder rounds otherwise than another one
        yield Comparison(f"p({word})", got, float(probs[target_of_label[word]]), tolerance)
        yield Comparison(f"likeliest number {rank + 1}", got, float(best[rank]), tolerance)


def _compare_sum(client: Client) -> Comparison:
    (probs,) = client.post(f"{_ROUTE}/probabilities", {"inputs": QUESTIONS[:1]})["probabilities"]
    return Comparison("sum of a full distribution", math.fsum(probs), 1.0, 1e-4)


def _perplexity(client: Client, sample: Sample) -> float:
    total = 0.0
    for start in range(0, len(sample.heldout), _MAX_REQUEST_ROWS):
        rows = sample.heldout[start : start + _MAX_REQUEST_ROWS]
        body = {
            "inputs": [row.context for row in rows],
            "targets": [row.next_word for row in rows],
            "log": True,
        }
        total += math.fsum(client.post(f"{_ROUTE}/probabilities", body)["log_probabilities"])
    return math.exp(-total / len(sample.heldout))
