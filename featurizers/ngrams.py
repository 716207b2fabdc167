"""fastText's n-grams of characters and of words, as the rows of the input matrix that they have.

A character is a byte of UTF-8 and its continuation bytes. The n-grams of a word are those of the
word between `<` and `>`. An n-gram's bucket is its FNV-1a hash modulo `bucket`; as in fastText's C
code, a byte from 128 to 255 counts as a negative number. Several words are hashed at once: all
characters lie in one array, and each pass adds one more character to every n-gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hsoftmax.models.arrays import Array, Int64
from hsoftmax.models.tree_paths import Int32

_OFFSET_BASIS = 2_166_136_261
_PRIME = 16_777_619
_WORD_FACTOR = 116_049_371  # by which fastText joins the hashes of two words
_BEGIN, _END = b"<", b">"
_MAX_CHARS_AT_ONCE = 2**15  # bounds the memory of a pass
_MAX_CACHED_BYTES = 64
_CONTINUATION, _CONTINUATION_MASK = 0x80, 0xC0


@dataclass(frozen=True)
class PrunedBuckets:
    """The buckets that a pruned model kept, ascending, and the new number of each."""

    bucket: Int32
    row: Int32

    def renumber(self, buckets: Int64) -> Int64:
        """Return the new number of each bucket, -1 for those that the model does not have."""
        if not len(self.bucket):
            return np.full_like(buckets, -1)
        places = np.minimum(np.searchsorted(self.bucket, buckets), len(self.bucket) - 1)
        return np.where(self.bucket[places] == buckets, self.row[places], -1)


@dataclass(frozen=True)
class Ngrams:
    """The n-grams that a model has.

    Attributes:
        min_chars, max_chars: lengths of character n-grams; there are none if max_chars is 0
        max_words: the longest n-gram of words; there are none if it is 0 or 1
        buckets: the number of buckets
        first_row: the row of bucket 0 in the input matrix
        pruned: the kept buckets of a pruned model
    """

    min_chars: int
    max_chars: int
    max_words: int
    buckets: int
    first_row: int
    pruned: PrunedBuckets | None = None


def word_features(
    words: Sequence[bytes], rows: Sequence[int], whole: Sequence[bool], ngrams: Ngrams
) -> tuple[Int64, Int64]:
    """Return the input rows of words: a word's own row, if it has one, then those of its n-grams.

    Args:
        rows: the row of each word, or -1
        whole: True for a word without n-grams

    Returns:
        (the rows of all words one after another, the number of rows of each word)
    """
    if not words or ngrams.max_chars <= 0:
        own = np.array(rows, dtype=np.int64)
        return own[own >= 0], (own >= 0).astype(np.int64)
    parts = [
        _features_of_part(words[part], rows[part], whole[part], ngrams) for part in _parts(words)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def word_ngram_features(words: Sequence[bytes], ngrams: Ngrams) -> Int64:
    """Return the input rows of the n-grams of words of one text, in fastText's order."""
    length = min(ngrams.max_words, len(words))
    if length < 2:
        return np.empty(0, dtype=np.int64)
    hashes = np.array([_word_hash(word) for word in words], dtype=np.uint32)
    signed = hashes.view(np.int32).astype(np.int64).view(np.uint64)
    joined = signed.copy()
    buckets = np.full((len(words), length - 1), -1, dtype=np.int64)
    for distance in range(1, length):
        joined = joined[:-1] * np.uint64(_WORD_FACTOR) + signed[distance:]
        buckets[: len(joined), distance - 1] = joined % np.uint64(ngrams.buckets)
    flat = buckets[buckets >= 0]
    return _bucket_rows(flat, ngrams)


def _parts(words: Sequence[bytes]) -> list[slice]:
    """Return slices of words that have at most so many bytes, or one word."""
    parts: list[slice] = []
    start = size = 0
    for i, word in enumerate(words):
        if size and size + len(word) > _MAX_CHARS_AT_ONCE:
            parts.append(slice(start, i))
            start, size = i, 0
        size += len(word) + 2
    return [*parts, slice(start, len(words))]


def _features_of_part(
    words: Sequence[bytes], rows: Sequence[int], whole: Sequence[bool], ngrams: Ngrams
) -> tuple[Int64, Int64]:
    content = np.frombuffer(b"".join([_BEGIN + word + _END for word in words]), dtype=np.uint8)
    word_starts = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum([len(word) + 2 for word in words], out=word_starts[1:])
    chars = np.flatnonzero((content & _CONTINUATION_MASK) != _CONTINUATION)
    first_char = np.searchsorted(chars, word_starts)  # of each word, and the end
    pieces, counts = [], np.zeros(len(words), dtype=np.int64)
    num_chars = np.diff(first_char)
    end = np.repeat(first_char[1:], num_chars)
    has_ngrams = np.repeat(~np.array(whole, dtype=np.bool_), num_chars)
    begins = np.zeros(len(chars), dtype=np.bool_)
    begins[first_char[:-1]] = True
    own = np.full(len(chars), -1, dtype=np.int64)
    own[first_char[:-1]] = rows
    step = max(1, _MAX_CHARS_AT_ONCE)
    for start in range(0, len(chars), step):
        part = slice(start, min(start + step, len(chars)))
        buckets = _char_ngram_buckets(content, chars, end, part, begins, ngrams)
        buckets[~has_ngrams[part]] = -1
        found = np.column_stack([own[part], _renumbered(buckets, ngrams)])
        present = found >= 0
        pieces.append(found[present])
        word_of_char = np.searchsorted(first_char, np.arange(part.start, part.stop), "right") - 1
        counts += np.bincount(word_of_char, present.sum(axis=1), len(words)).astype(np.int64)
    return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces)), counts


def _char_ngram_buckets(
    content: Array, chars: Int64, end: Int64, part: slice, begins: Array, ngrams: Ngrams
) -> Int64:
    """Return [characters, lengths]: the bucket of the n-gram from each character of the part.

    It is -1 where the word ends before the n-gram does, and for `<` and `>` alone.
    """
    low, high = max(1, ngrams.min_chars), ngrams.max_chars
    count = part.stop - part.start
    buckets = np.full((count, max(0, high - low + 1)), -1, dtype=np.int64)
    room = end[part] - np.arange(part.start, part.stop)
    values = _char_bytes(content, chars, slice(part.start, min(part.stop + high, len(chars))))
    state = np.full(count, _OFFSET_BASIS, dtype=np.uint32)
    for length in range(1, high + 1):
        state = state[: max(0, len(values[0][0]) - length + 1)]
        window = slice(length - 1, length - 1 + len(state))
        for value, present in values:
            mixed = (state ^ value[window]) * np.uint32(_PRIME)
            state = mixed if present is None else np.where(present[window], mixed, state)
        if length >= low:
            fits = room[: len(state)] >= length
            if length == 1:
                fits &= ~begins[part][: len(state)] & (room[: len(state)] > 1)
            column = buckets[: len(state), length - low]
            column[fits] = state[fits] % np.uint32(ngrams.buckets)
    return buckets


def _char_bytes(content: Array, chars: Int64, part: slice) -> list[tuple[Array, Array | None]]:
    """Return the first, second, … byte of each character, and which characters have such a byte.

    A byte from 128 on becomes a negative number of 32 bits. All characters have a first byte: None.
    """
    starts = chars[part]
    stop = int(chars[part.stop]) if part.stop < len(chars) else len(content)
    sizes = np.diff(starts, append=stop)
    signed = content.view(np.int8).astype(np.int32).view(np.uint32)
    values: list[tuple[Array, Array | None]] = [(signed[starts], None)]
    for i in range(1, int(sizes.max(initial=1))):
        present = sizes > i
        values.append((signed[np.where(present, starts + i, 0)], present))
    return values


def _renumbered(buckets: Int64, ngrams: Ngrams) -> Int64:
    """Return the input row of each bucket, -1 for those that the model does not have."""
    kept = buckets
    if ngrams.pruned is not None:
        kept = np.where(buckets >= 0, ngrams.pruned.renumber(buckets), -1)
    return np.where(kept >= 0, kept + ngrams.first_row, -1)


def _bucket_rows(buckets: Int64, ngrams: Ngrams) -> Int64:
    rows = _renumbered(buckets, ngrams)
    return rows[rows >= 0]


def _word_hash(word: bytes) -> int:
    """Return fastText's hash of a word. Short words are remembered, as a text repeats them."""
    return _cached_hash(word) if len(word) <= _MAX_CACHED_BYTES else _fnv_1a(word)


def _fnv_1a(content: bytes) -> int:
    state = _OFFSET_BASIS
    for byte in content:
        state = ((state ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _PRIME) & 0xFFFFFFFF
    return state


_cached_hash = lru_cache(maxsize=2**16)(_fnv_1a)
