"""Checks that a bundle's featurizer, as it is on disk, gives the numbers of the model's own."""

import numpy as np

from hsoftmax.bundle import Bundle
from hsoftmax.exporter.errors import VerificationError
from hsoftmax.featurizers import Featurizer, GensimFeaturizer, featurize, open_featurizer

_NUM_WORDS = 64


def check_featurizer(opened: Bundle, featurizer: Featurizer) -> None:
    """Compare the vectors of some words. Raises VerificationError if one differs."""
    stored = open_featurizer(opened)
    assert stored is not None, "the manifest names the featurizer that was just written"
    rows = _rows(featurizer)
    expected, actual = featurize(featurizer, rows), featurize(stored, rows)
    if not np.array_equal(expected.hidden, actual.hidden) or expected.errors.keys() != (
        actual.errors.keys()
    ):
        raise VerificationError("featurizer: expected the model's own vectors of words, got others")


def _rows(featurizer: Featurizer) -> list[list[str]]:
    """Return words of the model, and one that it does not have, as rows of one word each."""
    vocabulary = featurizer.vocabulary
    if isinstance(featurizer, GensimFeaturizer) and featurizer.documents is not None:
        vocabulary = featurizer.documents.tags
    step = max(1, len(vocabulary) // _NUM_WORDS)
    words = [vocabulary.word(number) for number in range(0, len(vocabulary), step)]
    return [[word.decode("utf-8", "replace")] for word in [*words, b"\xc3\xa9xpected"]]
