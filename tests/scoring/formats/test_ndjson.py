"""Tests of where the rows of a file of requests are: in the line, or in its `body`."""

import json

import numpy as np
import pytest

from hsoftmax.scoring.formats import Columns, RecordSchema
from hsoftmax.scoring.formats.ndjson import detect_columns, encode
from hsoftmax.scoring.results import RowResults


@pytest.mark.parametrize(
    ("row", "body"),
    [
        ({"custom_id": "a", "body": {"input": [1.0]}}, "body"),
        ({"custom_id": "a", "input": [1.0], "body": {"input": [2.0]}}, ""),
        ({"custom_id": "a", "input": [1.0]}, ""),
        ({"custom_id": "a", "body": "text"}, ""),
    ],
)
@pytest.mark.parametrize("before", ["", "{broken\n", "[1]\n", "\ufeff"])
def test_the_first_object_says_where_rows_are(tmp_path, row, body, before):
    path = tmp_path / "rows.ndjson"
    path.write_text(before + json.dumps(row), "utf-8")
    columns = detect_columns(path, Columns())
    assert (columns.body, columns.id) == (body, "custom_id")


@pytest.mark.parametrize("kind", ["int64", "float32", "float64", "bool"])
def test_a_record_has_the_same_text_in_narrow_and_wide_rows(kind):
    numbers = np.array([0.1, 1e-9, 3.5e20, 7, 0, 1 / 3]) if kind != "int64" else np.arange(6) - 2
    wide = np.tile(numbers.astype(kind), (2, 10))
    wide_line, _ = encode_column(wide)
    narrow_line, _ = encode_column(wide[:, :6])
    assert wide_line == "[" + ",".join([narrow_line[1:-1]] * 10) + "]"
    np.testing.assert_array_equal(np.array(json.loads(wide_line)).astype(kind), wide[0])


def encode_column(column: np.ndarray) -> list[str]:
    """Return the JSON of the column in the record of each row."""
    count = len(column)
    results = RowResults(range(count), list("ab"), np.arange(count), {"v": column}, {})
    lines = encode(results, RecordSchema((), "string", 0)).decode().splitlines()
    starts = [f'{{"id":"{id}","v":' for id in "ab"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 2
    return [line[len(start) : -1] for line, start in zip(lines, starts, strict=True)]
