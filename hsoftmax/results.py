"""The results of a model's methods, the same from a service (`client`) as in process (`load`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsoftmax.models import QueryError
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.probability import to_probability


@dataclass(frozen=True)
class ModelInfo:
    """One version of a model.

    Attributes:
        digest: SHA-256 that identifies the bundle
        num_clusters: None for a family without clusters
        has_labels: True if targets have labels
        tasks: the names of the tasks that the model has
        inputs: the kinds of a row of inputs: hidden, and perhaps named, text and words
        label_prefix: text that a label may have in front in a query, empty if there is none
    """

    name: str
    version: str
    digest: str
    family: str
    hidden_size: int | None
    num_targets: int | None
    num_clusters: int | None
    precision: str
    has_labels: bool
    tasks: tuple[str, ...]
    inputs: tuple[str, ...] = ("hidden",)
    label_prefix: str = ""


@dataclass(frozen=True, eq=False)
class TopK:
    """The likeliest targets of one row, descending.

    Attributes:
        labels: None if the model has no labels
        probabilities: one for each target; logarithms if the call said so
        exact: True if no other target can be likelier
        blocks: the number of blocks that the search opened
        truncated: True if more than k targets are above the threshold of the call
    """

    targets: Int64
    labels: tuple[str, ...] | None
    probabilities: Array
    exact: bool
    blocks: int
    truncated: bool = False


@dataclass(frozen=True, eq=False)
class Samples:
    """Targets that were drawn at random.

    Attributes:
        targets: [rows, samples]
        labels: a tuple for each row, None if the model has no labels
        probabilities: [rows, samples]; logarithms if the call said so
        seed: draws the same targets again
    """

    targets: Int64
    labels: tuple[tuple[str, ...], ...] | None
    probabilities: Array
    seed: int


@dataclass(frozen=True)
class LabelPage:
    """One page of targets and their labels, in the order of the targets.

    Attributes:
        targets: None for an inner node of a tree, which a query names by its label
        next: the `start` of the next page, None if this is the last one
    """

    targets: tuple[int | None, ...]
    labels: tuple[str, ...]
    next: int | None


def known_targets(targets: Iterable[int | None], labels: Sequence[str]) -> Int64:
    """Returns the targets of labels. Raises QueryError for the label of an inner node."""
    found = list(targets)
    for target, label in zip(found, labels, strict=True):
        if target is None:
            raise QueryError(
                f"labels: expected labels of targets, got {label[:60]!r} of an inner node: give "
                "the label itself where a target is asked for"
            )
    return np.array(found, dtype=np.int64)


def from_log(log_probs: Float32, log: bool) -> Array:
    """Returns the log-probabilities in float32, or else the probabilities in float64."""
    return log_probs if log else to_probability(log_probs)


def model_info(description: Mapping[str, Any]) -> ModelInfo:
    """Returns the description that the service gives of a model."""
    return ModelInfo(
        name=description["name"],
        version=description["version"],
        digest=description["digest"],
        family=description["family"],
        hidden_size=description["hidden_size"],
        num_targets=description["num_targets"],
        num_clusters=description["num_clusters"],
        precision=description["precision"],
        has_labels=description["labels"],
        tasks=tuple(description["tasks"]),
        inputs=tuple(description["inputs"]),
        label_prefix=description["label_prefix"],
    )


def top_k_row(row: Mapping[str, Any], log: bool) -> TopK:
    """Returns one result of the service's `top_k`, which has log-probabilities."""
    labels = row.get("labels")
    return TopK(
        targets=np.array(row["targets"], dtype=np.int64),
        labels=None if labels is None else tuple(labels),
        probabilities=from_log(log_prob_array(row["log_probabilities"]), log),
        exact=row["exact"],
        blocks=row["blocks"],
        truncated=row.get("truncated", False),
    )


def samples(response: Mapping[str, Any], log: bool) -> Samples:
    """Returns the service's response of `sample`, which has log-probabilities."""
    rows = response["results"]
    has_labels = all("labels" in row for row in rows)
    return Samples(
        targets=np.array([row["targets"] for row in rows], dtype=np.int64),
        labels=tuple(tuple(row["labels"]) for row in rows) if has_labels else None,
        probabilities=from_log(
            np.stack([log_prob_array(row["log_probabilities"]) for row in rows]), log
        ),
        seed=response["seed"],
    )


def log_prob_array(values: list[float | None]) -> Float32:
    """Returns float32 with minus infinity for null, as JSON has no infinity."""
    return np.array([-np.inf if value is None else value for value in values], dtype=np.float32)
