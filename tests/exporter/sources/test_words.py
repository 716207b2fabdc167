"""Words become labels in bounded memory, whatever a pickle repeats."""

import pytest

from hsoftmax.exporter import SourceError
from hsoftmax.exporter.sources.pickle_machine import ByteString
from hsoftmax.exporter.sources.words import word_labels, word_text


@pytest.mark.parametrize("word", [b"\xff" * 1000, ByteString("\xe9" * 1000)], ids=["bytes", "py2"])
def test_an_object_that_is_named_many_times_has_one_label(word):
    labels = word_labels([word] * 1000)
    assert len(labels) == 1000
    assert len({id(label) for label in labels}) == 1


def test_a_tuple_of_tuples_is_never_written_out():
    nested = ("a", "b")
    for _ in range(100):  # written out it would have 2^100 words
        nested = (nested, nested)
    with pytest.raises(SourceError, match="expected text, numbers or tuples of them, got a tuple"):
        word_text(nested)
