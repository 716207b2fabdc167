"""The words of a model, and the number of a word: three arrays that are mapped, not built.

The words stand one after another in `text`; word i ends where word i + 1 starts. `slots` is a hash
table with open addressing: a word stands in the first free slot after its hash. So a vocabulary of
a million words is ready at once, and all processes of a server share its memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from hsoftmax.models import WeightsError
from hsoftmax.models.arrays import Array, Int64

_EMPTY = -1
_SLOTS_PER_WORD = 2  # at least; then a search ends after two slots or so


@dataclass(frozen=True)
class Vocabulary:
    """Distinct words by number.

    Attributes:
        text: uint8, the words in UTF-8 one after another
        offsets: [words + 1] the start of each word in `text`
        slots: [a power of two] the number of a word, or -1
    """

    text: memoryview
    offsets: memoryview
    slots: memoryview

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def find(self, word: bytes) -> int:
        """Return the number of a word, or -1."""
        mask = len(self.slots) - 1
        slot = crc32(word) & mask
        while (number := self.slots[slot]) != _EMPTY:
            start, end = self.offsets[number], self.offsets[number + 1]
            if end - start == len(word) and self.text[start:end] == word:
                return int(number)
            slot = (slot + 1) & mask
        return _EMPTY

    def word(self, number: int) -> bytes:
        """Return the word of a number."""
        return bytes(self.text[self.offsets[number] : self.offsets[number + 1]])


def build_vocabulary(words: Sequence[bytes]) -> Vocabulary:
    """Build the arrays of a vocabulary. Of equal words the first one is found."""
    offsets = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum([len(word) for word in words], out=offsets[1:])
    slots = [_EMPTY] * _num_slots(len(words))
    mask = len(slots) - 1
    for number, word in enumerate(words):
        slot = crc32(word) & mask
        while slots[slot] != _EMPTY:
            slot = (slot + 1) & mask
        slots[slot] = number
    text = np.frombuffer(b"".join(words), dtype=np.uint8)
    return load_vocabulary("words", text, offsets, np.array(slots, dtype=np.int32))


def load_vocabulary(name: str, text: Array, offsets: Int64, slots: Array) -> Vocabulary:
    """Check the arrays of a vocabulary, so that no search runs without end or outside of them.

    Raises:
        WeightsError: arrays that do not fit together.
    """
    words = len(offsets) - 1
    if words < 0 or offsets[0] != 0 or offsets[-1] != len(text) or (np.diff(offsets) < 0).any():
        raise WeightsError(f"{name}: expected ascending offsets from 0 to {len(text)}, got others")
    if len(slots) != _num_slots(words):
        raise WeightsError(f"{name}: expected {_num_slots(words)} slots, got {len(slots)}")
    if slots.min() < _EMPTY or slots.max() >= words or (slots == _EMPTY).sum() < words:
        raise WeightsError(f"{name}: expected slots of {words} words, got others")
    return Vocabulary(text.data, offsets.data, slots.data)


def vocabulary_arrays(vocabulary: Vocabulary) -> tuple[Array, Int64, Array]:
    """Return (text, offsets, slots) as arrays."""
    text, offsets, slots = vocabulary.text, vocabulary.offsets, vocabulary.slots
    return np.asarray(text), np.asarray(offsets), np.asarray(slots)


def _num_slots(words: int) -> int:
    """Return the slots of a table: the power of two with at least two slots for each word."""
    return 1 << (_SLOTS_PER_WORD * words).bit_length()
