"""Types of other programs become plain ones, and every value stays as it is."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.scoring.formats.arrow_types import plain, plain_batch, plain_schema, plain_type

TEXT = ["a", None, "é" * 40, "a"]
NUMBERS = [[1.0, 2.0], None, [], [3.0]]
WORDS = [["a", "b" * 30], None, [], [None]]
HALVES = [[np.float16(1), np.float16(2)], None, [np.float16(3), None]]
LISTS = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
# [["a", "b…"], None, [], [None]], built as pyarrow 18 can: it has no converter for this type.
DICTIONARIES = pa.LargeListArray.from_arrays(
    pa.array([0, None, 2, 2, 3], pa.int64()),
    pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None], pa.uint8()), pa.array(["a", "b" * 30], pa.large_string())
    ),
)

ARRAYS = [
    *(pa.array(TEXT, one) for one in (pa.string(), pa.large_string(), pa.string_view())),
    pa.array(TEXT).dictionary_encode(),
    pa.array([7, None, 8, 7]).dictionary_encode(),
    *(pa.array(NUMBERS, one(pa.float32())) for one in LISTS),
    *(pa.array(WORDS, one(pa.string_view())) for one in LISTS),
    DICTIONARIES,
    pa.array(HALVES, pa.list_(pa.float16(), 2)),
    pa.array([["a", "b"], None, ["c", "d"], ["e", None]], pa.list_(pa.string_view(), 2)),
    pa.array([1, None, 3, 4], pa.int8()),
    pa.nulls(4),
]
PLAIN = {"string", "large_string", "int64", "int8", "float", "halffloat", "null"}


def leaf(kind: pa.DataType) -> pa.DataType:
    return leaf(kind.value_type) if hasattr(kind, "value_type") else kind


@pytest.mark.parametrize("array", ARRAYS, ids=lambda one: str(one.type))
def test_values_stay(array):
    for part in (array, array[1:], array[:3], array[1:3], array[:0]):
        got = plain(part)
        got.validate(full=True)
        assert got.to_pylist() == part.to_pylist()
        assert got.type == plain_type(part.type)
        assert plain(got) is got
    kind = plain_type(array.type)
    assert str(leaf(kind)) in PLAIN
    assert not pa.types.is_dictionary(kind)
    assert not pa.types.is_list_view(kind)


def test_a_dictionary_of_views_is_text():
    """pyarrow itself can take no values of such a dictionary, which is what polars writes."""
    views = pa.array(["a", "é" * 40], pa.string_view())
    array = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.uint32()), views)
    assert plain(array).to_pylist() == ["é" * 40, None, "a"]
    lists = pa.LargeListArray.from_arrays(pa.array([0, 1, 3], pa.int64()), array)
    assert plain(lists[1:]).to_pylist() == [[None, "a"]]


def test_decimals_of_numbers_are_floats():
    decimals = pa.array([[Decimal("0.1"), Decimal("-2.5")]], pa.list_(pa.decimal128(3, 1)))
    assert plain(decimals, decimals=True).to_pylist() == [[0.1, -2.5]]
    assert plain(decimals) is decimals


def test_a_tensor_is_a_list():
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(
        np.arange(6, dtype=np.float32).reshape(3, 2)
    )
    assert plain(tensor).to_pylist() == [[0, 1], [2, 3], [4, 5]]


def test_a_batch_has_the_schema_that_is_foretold():
    batch = pa.record_batch({
        "input": pa.array([[Decimal("0.5")]], pa.large_list(pa.decimal128(3, 1))),
        "id": pa.array([Decimal("1.0")], pa.decimal128(3, 1)),
        "target": pa.array(["a"]).dictionary_encode(),
    })  # fmt: skip
    got = plain_batch(batch, {"input", "target"})
    assert got.schema == plain_schema(batch.schema, {"input", "target"})
    assert got.to_pydict() == {"input": [[0.5]], "id": [Decimal("1.0")], "target": ["a"]}
    assert plain_batch(got, {"input"}) is got
