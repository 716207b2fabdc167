"""Counts the bytes of rows whose columns share bytes.

Dictionaries, string views and list views name bytes that other rows may name too: a few bytes for
each row, and a text of a megabyte in all of them. So the sizes are known before any row is copied.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hsoftmax.models.arrays import Float64

from .arrow_types import Arrow, is_any_list

MAX_ROW_BYTES = 16 * 2**20
_VIEW_NUMBERS = 4  # of 32 bits in a string view; the first is the length


def row_sizes(batch: Arrow) -> Float64:
    """Returns the bytes of each row of a valid batch, as `plain_batch` copies it.

    They are floats, because nested views can name more bytes than an integer counts.
    """
    total = np.zeros(batch.num_rows)
    for column in batch.columns:
        total += _value_sizes(column)
    return total


def column_size(chunks: Iterable[Arrow]) -> float:
    """Returns the bytes of all values of valid arrays, as `plain_chunks` copies them."""
    return sum(float(np.broadcast_to(_value_sizes(one), len(one)).sum()) for one in chunks)


def _value_sizes(array: Arrow) -> Float64 | float:
    """Returns the bytes of each value of a valid array, one number if all have equally many."""
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _value_sizes(array.storage)
    if types.is_dictionary(kind):
        return _dictionary_sizes(array)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        views = np.frombuffer(array.buffers()[1], dtype=np.int32).reshape(-1, _VIEW_NUMBERS)
        return _of_present(array, views[array.offset : array.offset + len(array), 0])
    if is_any_list(kind):
        return _list_sizes(array)
    if _is_binary(kind):
        return _of_present(array, pc.binary_length(array).fill_null(0))
    return _fixed_size(kind)


def end_within(ends: Float64, start: int, max_bytes: float) -> int:
    """Returns the end of the rows from `start` on that have `max_bytes` in all, at least one row.

    `ends` are the cumulative sums of `row_sizes`.
    """
    before = ends[start - 1] if start else 0.0
    return max(start + 1, int(np.searchsorted(ends, before + max_bytes, side="right")))


def pieces_within(batch: Arrow, max_bytes: float) -> Iterator[Arrow]:
    """Yields a batch in pieces of at most `max_bytes`, or of one row."""
    ends, start = np.cumsum(row_sizes(batch)), 0
    while start < batch.num_rows:
        end = end_within(ends, start, max_bytes)
        yield batch.slice(start, end - start)
        start = end


def _dictionary_sizes(array: Arrow) -> Float64 | float:
    sizes = _value_sizes(array.dictionary)
    if not isinstance(sizes, np.ndarray):
        return sizes
    if not len(sizes):
        return 0.0
    return _of_present(array, sizes[np.asarray(array.indices.fill_null(0), dtype=np.int64)])


def _list_sizes(array: Arrow) -> Float64:
    types, kind = pa.types, array.type
    sizes = _value_sizes(array.values)
    if not isinstance(sizes, np.ndarray):
        lengths = array.value_lengths().fill_null(0)
        return np.asarray(lengths, dtype=np.float64) * sizes
    ends = np.concatenate([[0.0], np.cumsum(sizes)])
    if types.is_fixed_size_list(kind):
        first = (np.arange(len(array)) + array.offset) * kind.list_size
        last = first + kind.list_size
    else:
        first = np.asarray(array.offsets)[: len(array)].astype(np.int64)
        last = first + np.asarray(array.value_lengths().fill_null(0), dtype=np.int64)
    return _of_present(array, ends[last] - ends[first])


def _of_present(array: Arrow, sizes: Any) -> Float64:  # noqa: ANN401  pyarrow has no types
    """Returns sizes as floats, and 0 for nulls."""
    present = array.is_valid().to_numpy(zero_copy_only=False)
    return np.where(present, np.asarray(sizes, dtype=np.float64), 0.0)


def _is_binary(kind: Arrow) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _fixed_size(kind: Arrow) -> float:
    """Returns the bytes of a value of a type of fixed width; 0 for others, which nothing copies."""
    try:
        return float(kind.bit_width) / 8
    except ValueError:
        return 0.0
