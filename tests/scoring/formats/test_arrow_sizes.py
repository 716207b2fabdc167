"""The bytes of each row are those that its plain copy has, however many rows share them."""

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.scoring.formats.arrow_sizes import column_size, pieces_within, row_sizes
from hsoftmax.scoring.formats.arrow_types import plain

from .test_arrow_types import ARRAYS

LONG = "x" * 1_000_000
WIDTHS = {"float": 4, "halffloat": 2, "int8": 1, "int64": 8, "null": 0}


def size_of(value: object, leaf: str) -> int:
    if value is None:
        return 0
    if isinstance(value, list):
        return sum(size_of(one, leaf) for one in value)
    return len(value.encode()) if isinstance(value, str) else WIDTHS[leaf]


def leaf_of(kind: pa.DataType) -> str:
    return leaf_of(kind.value_type) if hasattr(kind, "value_type") else str(kind)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda one: str(one.type))
def test_sizes_are_those_of_plain_values(array):
    """A null of a fixed width has its place in a copy, so its size may be counted."""
    leaf = leaf_of(plain(array).type)
    for part in (array, array[1:], array[:3], array[1:3], array[:0]):
        expected = [size_of(value, leaf) for value in part.to_pylist()]
        got = row_sizes(pa.record_batch({"x": part})).tolist()
        assert all(one >= least for one, least in zip(got, expected, strict=True))
        assert sum(got) <= plain(part).get_total_buffer_size()
        assert column_size([part, part]) == 2 * sum(got)
        if leaf not in WIDTHS:
            assert got == expected


def repeated(rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([LONG]))


def lists_of(values: pa.Array, rows: int) -> pa.Array:
    """Return rows that each are all of the values."""
    starts = pa.array(np.zeros(rows, np.int32))
    return pa.ListViewArray.from_arrays(
        starts, pa.array(np.full(rows, len(values), np.int32)), values
    )


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (repeated(5000), 1e6),
        (lists_of(pa.array(np.zeros(1000, np.float32)), 5000), 4e3),
        (lists_of(repeated(1000), 5000), 1e9),
        (lists_of(lists_of(repeated(1000), 1000), 5000), 1e12),
    ],
    ids=["texts", "numbers", "lists of texts", "lists of lists"],
)
def test_shared_bytes_count_for_each_row(array, size):
    batch = pa.record_batch({"id": pa.array(range(5000), pa.int64()), "x": array})
    assert row_sizes(batch).tolist() == [size + 8] * 5000
    pieces = list(pieces_within(batch, 8_000_100))
    rows = max(1, int(8_000_100 // (size + 8)))
    assert [len(one) for one in pieces][:-1] == [rows] * (len(pieces) - 1)
    assert [x for one in pieces for x in one["id"].to_pylist()] == list(range(5000))
