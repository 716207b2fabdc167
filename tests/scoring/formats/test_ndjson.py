"""Where the rows of a file of requests are: in the line, or in its `body`."""

import json

import pytest

from hsoftmax.scoring.formats import Columns
from hsoftmax.scoring.formats.ndjson import detect_columns


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
