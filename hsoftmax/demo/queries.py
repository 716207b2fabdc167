"""What the demonstration asks, and how it checks the answers against the NumPy reference."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.client import Client
from hsoftmax.models.arrays import Float64

from .sample_model import SAMPLE_NAME, Sample

_SHOWN = 3
_ROWS_AT_ONCE = 256
_ROUTE = f"/v1/models/{SAMPLE_NAME}"


@dataclass(frozen=True)
class ContextAnswer:
    """The five likeliest next words of one context, and the word that truly came next."""

    context: str
    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    true_word: str
    true_probability: float


@dataclass(frozen=True)
class Comparison:
    """One figure as served and as computed without the service."""

    what: str
    got: float
    wanted: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.got - self.wanted) <= self.tolerance


def query_sample(client: Client, sample: Sample, made: bundle.Bundle) -> list[ContextAnswer]:
    """Ask about the first few held-out positions."""
    hidden, target = (array[:_SHOWN] for array in sample.heldout)
    labels = bundle.read_labels(made)
    assert labels is not None
    likeliest = client.post(f"{_ROUTE}/top_k", {"inputs": hidden.tolist(), "k": 5})["results"]
    true_words = [labels[t] for t in target]
    true = client.post(
        f"{_ROUTE}/probabilities", {"inputs": hidden.tolist(), "targets": true_words}
    )["probabilities"]
    return [
        ContextAnswer(
            context, tuple(best["labels"]), tuple(best["probabilities"]), word, probability
        )
        for context, best, word, probability in zip(
            sample.contexts, likeliest, true_words, true, strict=False
        )
    ]


def compare(
    client: Client, sample: Sample, made: bundle.Bundle, answers: list[ContextAnswer]
) -> Iterator[Comparison]:
    """Everything that was answered, and the perplexity of all held-out positions, checked."""
    model = models.from_tensors(
        made.manifest.family, bundle.load_tensors(made), made.manifest.attributes
    )
    labels = bundle.read_labels(made)
    assert labels is not None
    full = np.exp(models.reference(model).log_probs(model, sample.heldout[0][:_SHOWN]))
    for answer, probs in zip(answers, full, strict=True):
        yield from _compare_answer(answer, probs, labels)
    yield _compare_sum(client, sample)
    served = _perplexity(client, sample)
    yield Comparison("held-out perplexity", served, sample.perplexity, 1e-3 * sample.perplexity)


def _compare_answer(
    answer: ContextAnswer, probs: Float64, labels: tuple[str, ...]
) -> Iterator[Comparison]:
    where = {label: target for target, label in enumerate(labels)}
    best = -np.sort(-probs)
    for rank, (word, got) in enumerate(zip(answer.words, answer.probabilities, strict=True)):
        yield Comparison(f"p({word})", got, float(probs[where[word]]), 1e-5 * got + 1e-9)
        yield Comparison(f"likeliest number {rank + 1}", got, float(best[rank]), 1e-5 * got + 1e-9)
    true = float(probs[where[answer.true_word]])
    yield Comparison(f"p({answer.true_word})", answer.true_probability, true, 1e-5 * true + 1e-9)


def _compare_sum(client: Client, sample: Sample) -> Comparison:
    body = {"inputs": sample.heldout[0][:1].tolist()}
    (probs,) = client.post(f"{_ROUTE}/probabilities", body)["probabilities"]
    return Comparison("sum of a full distribution", math.fsum(probs), 1.0, 1e-4)


def _perplexity(client: Client, sample: Sample) -> float:
    hidden, target = sample.heldout
    total = 0.0
    for start in range(0, len(target), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        body = {"inputs": hidden[some].tolist(), "targets": target[some].tolist(), "log": True}
        total += math.fsum(client.post(f"{_ROUTE}/probabilities", body)["log_probabilities"])
    return math.exp(-total / len(target))
