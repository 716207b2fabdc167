"""Tests of the vocabulary: every word is found by its number, and no other word is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.featurizers.vocabulary import build_vocabulary, load_vocabulary, vocabulary_arrays
from hsoftmax.models import WeightsError


@given(st.lists(st.binary(max_size=6), unique=True, max_size=60), st.binary(max_size=6))
def test_words_are_found_and_others_are_not(words, other):
    vocabulary = build_vocabulary(words)
    assert len(vocabulary) == len(words)
    assert [vocabulary.find(word) for word in words] == list(range(len(words)))
    assert [vocabulary.word(number) for number in range(len(words))] == words
    assert vocabulary.find(other) == (words.index(other) if other in words else -1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("offsets", [0, 2, 1, 3]),
        ("offsets", [1, 1, 2, 3]),
        ("offsets", [0, 1, 2, 4]),
        ("slots", [0] * 8),  # full: a search would not end
        ("slots", [0, 1, 2, 3, -1, -1, -1, -1]),
        ("slots", [0, 1, 2, -2, -1, -1, -1, -1]),
        ("slots", [0, 1, 2, -1]),
    ],
)
def test_arrays_that_would_lead_outside_or_without_end_are_refused(name, values):
    text, offsets, slots = vocabulary_arrays(build_vocabulary([b"a", b"b", b"c"]))
    arrays = {"text": text, "offsets": offsets, "slots": slots}
    arrays[name] = np.array(values, dtype=arrays[name].dtype)
    with pytest.raises(WeightsError, match=r"^words: expected"):
        load_vocabulary("words", **arrays)
