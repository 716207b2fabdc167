"""The native kernel of a supervised fastText model's features: lines of text to `hidden`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.tree_paths import Int32

from .library import NativeLibrary, expect_ok, expect_tensor

_NO_PRUNING = -1


@dataclass(frozen=True)
class TextArrays:
    """The arrays and sizes of a model's dictionary, n-grams and input matrix.

    Attributes:
        pruned: ascending buckets and the row of each, or None
        shape: (rows, columns) of the input matrix
        weight: the dense matrix, or None
        codes, centroids, norm_codes, norms: the product-quantised matrix, or None
    """

    text: Array
    offsets: Array
    slots: Array
    words: int
    min_chars: int
    max_chars: int
    max_words: int
    buckets: int
    pruned: tuple[Array, Array] | None
    shape: tuple[int, int]
    weight: Array | None
    codes: Array | None
    centroids: Array | None
    norm_codes: Array | None
    norms: Array | None


class TextKernel:
    """Computes the mean of the input rows of lines, over arrays that stay where they lie."""

    def __init__(self, library: NativeLibrary, arrays: TextArrays) -> None:
        """Raises NativeError if an array has another type or layout."""
        self._library, self._arrays = library, arrays  # pointers do not keep arrays alive
        self._ranges = _pruned_ranges(arrays)
        self._model = _model(library, arrays, self._ranges)

    def __call__(self, lines: Sequence[bytes]) -> tuple[Float32, list[int]]:
        """Return hidden [lines, columns], and the number of rows of which each is the mean.

        Raises:
            NativeError: arrays that lead outside of each other.
        """
        count, ffi = len(lines), self._library.ffi
        ends = ffi.new("int64_t[]", list(accumulate(map(len, lines))))
        counts = ffi.new("int64_t[]", count)
        hidden = np.empty((count, self._arrays.shape[1]), dtype=np.float32)
        status = self._library.functions.hsoftmax_text_hidden(
            self._model, b"".join(lines), ends, count, self._library.pointer(hidden), counts
        )
        expect_ok(status)
        return hidden, ffi.unpack(counts, count)


@dataclass(frozen=True)
class _Ranges:
    """The first kept bucket of each range of 2**shift buckets, so that few are compared."""

    start: Int32
    shift: int


def _pruned_ranges(arrays: TextArrays) -> _Ranges | None:
    """Return ranges of about one kept bucket each; None for a model with all buckets."""
    if arrays.pruned is None:
        return None
    buckets = max(1, arrays.buckets)
    shift = max(0, (buckets // max(1, len(arrays.pruned[0]))).bit_length() - 1)
    firsts = np.arange(((buckets - 1) >> shift) + 2, dtype=np.int64) << shift
    start = np.searchsorted(arrays.pruned[0], firsts).astype(np.int32)
    return _Ranges(start, shift)


def _model(library: NativeLibrary, arrays: TextArrays, ranges: _Ranges | None) -> Any:  # noqa: ANN401
    """Describe a model. Raises NativeError for an array of another type or layout."""

    def pointer(name: str, array: Array | None, dtype: DTypeLike) -> Any:  # noqa: ANN401
        if array is None:
            return library.ffi.NULL
        return library.pointer(expect_tensor(name, array, dtype, array.shape))

    bucket, row = arrays.pruned or (None, None)
    parts, part_size = (0, 0)
    if arrays.codes is not None and arrays.centroids is not None:
        parts, part_size = arrays.codes.shape[1], arrays.centroids.shape[2]
    return library.ffi.new("hsoftmax_text *", {
        "text": pointer("words.text", arrays.text, np.uint8),
        "offsets": pointer("words.offsets", arrays.offsets, np.int64),
        "slots": pointer("words.slots", arrays.slots, np.int32),
        "pruned_bucket": pointer("pruned.bucket", bucket, np.int32),
        "pruned_row": pointer("pruned.row", row, np.int32),
        "pruned_start": pointer("ranges", None if ranges is None else ranges.start, np.int32),
        "pruned_ranges": 0 if ranges is None else len(ranges.start) - 1,
        "pruned_shift": 0 if ranges is None else ranges.shift,
        "weight": pointer("input.weight", arrays.weight, np.float32),
        "codes": pointer("input.codes", arrays.codes, np.uint8),
        "centroids": pointer("input.centroids", arrays.centroids, np.float32),
        "norm_codes": pointer("input.norm_codes", arrays.norm_codes, np.uint8),
        "norms": pointer("input.norms", arrays.norms, np.float32),
        "text_size": len(arrays.text),
        "entries": len(arrays.offsets) - 1,
        "words": arrays.words,
        "num_slots": len(arrays.slots),
        "num_pruned": _NO_PRUNING if bucket is None else len(bucket),
        "min_chars": arrays.min_chars,
        "max_chars": arrays.max_chars,
        "max_words": arrays.max_words,
        "buckets": arrays.buckets,
        "rows": arrays.shape[0],
        "columns": arrays.shape[1],
        "parts": parts,
        "part_size": part_size,
    })  # fmt: skip
