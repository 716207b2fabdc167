"""The one function that turns rows of text into `hidden`, for every kind of featurizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Float32
from hsoftmax.models.probability import all_finite

from .errors import TextError
from .fasttext import FastTextFeaturizer, native_hidden, numpy_hidden
from .gensim import GensimFeaturizer, gensim_hidden
from .words import TextInput

Featurizer = FastTextFeaturizer | GensimFeaturizer

_ROWS_AT_ONCE = 256  # whose words are hashed together


@dataclass(frozen=True)
class FeaturizedRows:
    """[rows, hidden_size], with zeros for the rows that have an error."""

    hidden: Float32
    errors: Mapping[int, TextError]


def featurize(featurizer: Featurizer, rows: Sequence[TextInput]) -> FeaturizedRows:
    """Return the hidden vectors of rows, each a text or a list of words, and the rows' errors.

    A row's numbers are the same, bit for bit, alone and among any other rows.

    Raises:
        WeightsChanged: the mapped file was changed in place, before or while the rows were read.
    """
    if featurizer.guard is None:
        return _featurize(featurizer, rows)
    featurizer.guard.expect_unchanged()
    try:
        return _featurize(featurizer, rows)
    finally:
        featurizer.guard.expect_unchanged()


def _featurize(featurizer: Featurizer, rows: Sequence[TextInput]) -> FeaturizedRows:
    if isinstance(featurizer, FastTextFeaturizer) and featurizer.kernel is not None:
        hidden, errors = native_hidden(featurizer.kernel, rows)
    else:
        hidden, errors = _numpy_rows(featurizer, rows)
    _expect_finite(hidden, errors)
    return FeaturizedRows(hidden, errors)


def _numpy_rows(
    featurizer: Featurizer, rows: Sequence[TextInput]
) -> tuple[Float32, dict[int, TextError]]:
    hidden = np.zeros((len(rows), featurizer.hidden_size), dtype=np.float32)
    errors: dict[int, TextError] = {}
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        if isinstance(featurizer, FastTextFeaturizer):
            results = numpy_hidden(featurizer, part)
        else:
            results = gensim_hidden(featurizer, part)
        for i, result in enumerate(results, start):
            if isinstance(result, TextError):
                errors[i] = result
            else:
                hidden[i] = result
    return hidden, errors


def input_kinds(featurizer: Featurizer) -> tuple[str, ...]:
    """Return the kinds of a row besides a hidden vector, the usual one first."""
    return ("text", "words") if isinstance(featurizer, FastTextFeaturizer) else ("words", "text")


def _expect_finite(hidden: Float32, errors: dict[int, TextError]) -> None:
    """Give rows whose sum is beyond float32 an error."""
    if all_finite(hidden):
        return
    for i in map(int, np.flatnonzero(~np.isfinite(hidden).all(axis=1))):
        errors[i] = TextError("expected a sum of vectors within float32, got one beyond it")
        hidden[i] = 0
