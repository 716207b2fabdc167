"""Validates the inputs and the targets of a call in process, as the service does for its queries.

A graph does not check an index: one out of range wraps round and gives a plausible but wrong
probability. `local_model` calls it.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from hsoftmax.featurizers import TextInput, featurize
from hsoftmax.inputs import Inputs, as_matrix
from hsoftmax.models import QueryError
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.scoring import BundleInfo
from hsoftmax.scoring.label_suggestions import label_hint
from hsoftmax.scoring.overflow import overflow_sentence, overflowed_rows


def hidden_states(inputs: Inputs, info: BundleInfo) -> Float32:
    """Returns the inputs as [rows, hidden_size] of finite float32. Raises QueryError."""
    matrix = as_matrix(inputs)
    if matrix is None:
        matrix = _hidden_of_texts(inputs, info)
    if matrix.shape[1] != info.hidden_size or not len(matrix):
        expected = f"rows of {info.hidden_size} numbers"
        raise QueryError(f"inputs: expected {expected}, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        i, j = np.argwhere(~np.isfinite(matrix))[0]
        raise QueryError(
            f"inputs row {i}, position {j}: expected a finite number within float32, "
            f"got {matrix[i, j]}"
        )
    return matrix


def _hidden_of_texts(inputs: Inputs, info: BundleInfo) -> Float32:
    """Returns the hidden states of texts, or of lists of words. Raises QueryError."""
    if info.featurizer is None or isinstance(inputs, Mapping):
        got = "arrays by name" if isinstance(inputs, Mapping) else "text"
        raise QueryError(
            f"inputs: expected rows of {info.hidden_size} numbers, got {got}: "
            f"{info.name} takes no {got}"
        )
    rows = cast("Sequence[TextInput]", inputs)
    for i, row in enumerate(rows):
        if not (isinstance(row, str) or all(isinstance(word, str) for word in row)):
            raise QueryError(f"inputs row {i}: expected a text or a list of words, got others")
    results = featurize(info.featurizer, rows)
    if results.errors:
        first = min(results.errors)
        raise QueryError(f"inputs row {first}: {results.errors[first]}")
    return results.hidden


def target_numbers(lists: Sequence[Sequence[object]], info: BundleInfo) -> Int64:
    """Returns the targets of all rows, labels looked up, each in range. Raises QueryError."""
    targets = [_target_number(one, row, info) for row, some in enumerate(lists) for one in some]
    return np.array(targets, dtype=np.int64)


def _target_number(target: object, row: int, info: BundleInfo) -> int:
    if isinstance(target, str):
        number = info.find_target(target)
        if number is None:
            hint = label_hint(target, info)
            raise QueryError(f"targets: no label {target[:60]!r} in {info.name}{hint}")
        return number
    last = info.num_targets - 1
    if not isinstance(target, (int, np.integer)) or not 0 <= target <= last:
        raise QueryError(f"targets row {row}: expected 0 to {last}, got {target!r}")
    return int(target)


def expect_labels(info: BundleInfo) -> tuple[str, ...]:
    """Returns the label of each target. Raises QueryError if there are none."""
    if info.labels is None:
        raise QueryError(f"labels: expected a model with labels, {info.name} has none")
    return info.labels


def checked_log_probs(
    log_probs: Array,
    hidden: Float32,
    info: BundleInfo,
    *,
    row: Int64 | None = None,
    absent: Array | np.bool_ | None = None,
) -> Float32:
    """Returns a graph's log-probabilities, none above the largest that there is.

    `row` and `absent` are those of `overflowed_rows`.

    Raises:
        QueryError: the logits of a row overflowed float32.
    """
    bad = overflowed_rows(log_probs, hidden, row=row, absent=absent)
    if len(bad):
        sentence = overflow_sentence(hidden[bad[0]]) or "expected a finite result, got another"
        raise QueryError(f"inputs row {bad[0]}: {sentence}")
    limited: Float32 = np.minimum(log_probs, info.max_log_prob, dtype=np.float32)
    return limited
