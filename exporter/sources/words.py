"""Turns the words of a model into labels, which are text.

Text stays as it is. Bytes are decoded as UTF-8; a byte that is not UTF-8 becomes the surrogate
U+DC80 to U+DCFF, as with Python's `surrogateescape`, so the bytes can be recovered. A number is
written as Python writes it, and so is a tuple: `("a", 3)` is `('a', 3)`. NumPy's scalars count as
the text or number that they hold. Anything else has no text, and the export then needs `--labels`.
"""

from collections.abc import Sequence

import numpy as np

from hsoftmax.exporter.errors import SourceError

from .pickle_machine import PickledCall
from .pickled_arrays import bytes_of, describe, scalar

# A pickle may name one object many times, so a small file could claim endless labels: an object
# has one label, and labels that are made of other objects are short.
_MAX_WRITTEN_LENGTH = 256
_MAX_INTEGER_BITS = 512

_Value = str | int | float | None


def decode_word(content: bytes) -> str:
    """Return the text of bytes; those that are not UTF-8 become surrogates."""
    return content.decode("utf-8", errors="surrogateescape")


def word_labels(words: Sequence[object]) -> tuple[str, ...]:
    """Return the label of each word in pickle data.

    Raises:
        SourceError: a word of a kind that has no stated text.
    """
    objects = {id(word): word for word in words}
    label_of = {key: word_text(word) for key, word in objects.items()}
    return tuple(label_of[id(word)] for word in words)


def word_text(word: object) -> str:
    """Return the label of a word in pickle data.

    Raises:
        SourceError: a word of a kind that has no stated text.
    """
    if isinstance(word, tuple):
        return _tuple_text(word)
    value = _plain_value(word)
    return value if isinstance(value, str) else str(value)


def _tuple_text(word: tuple[object, ...]) -> str:
    if len(word) <= _MAX_WRITTEN_LENGTH:
        values = tuple(map(_plain_value, word))
        if sum(len(v) for v in values if isinstance(v, str)) <= _MAX_WRITTEN_LENGTH:
            return repr(values)
    raise SourceError("words: expected text, numbers or short tuples of them, got a long tuple")


def _plain_value(word: object) -> _Value:
    """Return text or a number. Raises SourceError."""
    if (content := bytes_of(word)) is not None:
        return decode_word(content)
    if isinstance(word, int) and word.bit_length() > _MAX_INTEGER_BITS:
        raise SourceError("words: expected integers of at most 512 bits, got a larger one")
    if word is None or isinstance(word, str | int | float):
        return word
    value = scalar(word) if isinstance(word, PickledCall) else None
    if value is None:
        raise SourceError(f"words: expected text, numbers or tuples of them, got {describe(word)}")
    if value.nbytes > 4 * _MAX_WRITTEN_LENGTH:
        raise SourceError(
            f"words: expected NumPy's text of at most {_MAX_WRITTEN_LENGTH} characters, got more"
        )
    if isinstance(value, np.bytes_):
        return decode_word(bytes(value))
    # A float32 has fewer digits than the float64 of the same value.
    return float(str(value)) if isinstance(value, np.floating) else value.item()
