"""Rows that a decoder cannot read are errors in their place, in every format."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax.scoring import Columns
from hsoftmax.scoring.formats import arrow_batch, csv, ndjson, npy
from hsoftmax.scoring.formats.registry import detect_columns, open_inputs
from hsoftmax.scoring.requirements import RowRequirements

from .conftest import HIDDEN, make_rows, write

TEXT = pa.array([b"a", b"caf\xe9", b"b"], pa.binary()).view(pa.string())
INPUTS = pa.array([[0.5] * HIDDEN] * 3, pa.list_(pa.float32()))


def read(path, bundle_info):
    """Returns the batch of a file's rows, and the ids that the search for duplicates reads."""
    columns = detect_columns([path], Columns())
    reader = open_inputs([path], columns, bundle_info)
    try:
        ids = [id for batch in reader.ids() for id in batch]
        raw = reader.read(reader.begin(), 1000)
        return reader.parse(raw, RowRequirements(bundle_info, "any")), ids
    finally:
        reader.close()


def lines_file(path, change) -> None:
    """Writes three rows as lines, the second changed."""
    write(path, [{**row, "id": "abc"[row["id"]]} for row in make_rows(3)])
    *head, last = path.read_bytes().splitlines()
    head[-1] = change(head[-1])
    path.write_bytes(b"\n".join([*head, last]) + b"\n")


@pytest.mark.parametrize("extension", ["ndjson", "csv"])
def test_a_line_that_is_not_utf8_is_an_error_of_its_row(tmp_path, bundle_info, extension):
    path = tmp_path / f"rows.{extension}"
    lines_file(path, lambda line: line.replace(b"s0", b"caf\xe9"))
    rows, _ = read(path, bundle_info)
    assert list(rows.row_errors) == [1]
    assert "UTF-8" in str(rows.row_errors[1])
    assert rows.counts.tolist() == [1, 0, 1]


def test_the_id_of_such_a_line_is_kept_where_it_can_be_read(tmp_path, bundle_info):
    path = tmp_path / "rows.ndjson"
    lines_file(path, lambda line: line.replace(b"s0", b"caf\xe9"))
    rows, ids = read(path, bundle_info)
    assert list(rows.ids) == ids == ["a", "b", "c"]
    lines_file(path, lambda line: line.replace(b'"b"', b'"caf\xe9"'))
    rows, ids = read(path, bundle_info)
    assert list(rows.ids) == ids == ["a", None, "c"]


def test_bytes_of_a_field_that_is_skipped_decide_nothing(tmp_path, bundle_info):
    path = tmp_path / "rows.ndjson"
    first = b'{"custom_id":"x","note":"caf\xe9","input":[0,0,0,0,0,0],"target":1}\n'
    path.write_bytes(first)
    rows, ids = read(path, bundle_info)
    assert (list(rows.ids), ids, dict(rows.row_errors)) == (["x"], ["x"], {})


def test_a_failed_line_of_many_lists_takes_no_memory_of_lists(tmp_path, bundle_info):
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b'{"id":7,"input":[' + b"[]," * 5_000_000 + b"[]]}\n")
    rows, _ = read(path, bundle_info)
    assert "expected a number, got a list" in str(rows.row_errors[0])
    assert rows.ids[0] == 7


def arrow_file(path, columns: dict) -> None:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("column", ["id", "target", "sequence"])
@pytest.mark.parametrize("extension", ["arrow", "parquet"])
def test_text_of_a_column_that_is_not_utf8_is_an_error_of_its_row(
    tmp_path, bundle_info, extension, column
):
    path = tmp_path / f"rows.{extension}"
    labels = pa.array(["word1", "word2", "word3"])
    if column == "target":
        labels = pa.array([b"word1", b"caf\xe9", b"word3"], pa.binary()).view(pa.string())
    columns = {"id": pa.array(["a", "c", "b"]), "input": INPUTS, "target": labels}
    if column != "target":
        columns[column] = TEXT
    arrow_file(path, columns)
    rows, ids = read(path, bundle_info)
    assert list(rows.row_errors) == [1]
    assert rows.row_errors[1].code == "invalid_query"
    assert rows.target.tolist() == [1, 3]
    assert rows.hidden[:, 0].tolist() == [0.5, 0, 0.5]
    assert list(rows.ids) == ["a", None, "b"]
    assert ids == (["a", None, "b"] if column == "id" else ["a", "c", "b"])


def test_offsets_that_lead_outside_end_the_file_in_one_line(tmp_path, bundle_info):
    numbers = pa.array([0.5] * 3 * HIDDEN, pa.float32())
    for offsets in ([0, HIDDEN, 10**6, 3 * HIDDEN], [0, -5, HIDDEN, 3 * HIDDEN]):
        buffers = [None, pa.array(offsets, pa.int32()).buffers()[1]]
        lists = pa.Array.from_buffers(pa.list_(pa.float32()), 3, buffers, children=[numbers])
        path = tmp_path / "rows.arrow"
        arrow_file(path, {"input": lists, "target": [0, 1, 2]})
        with pytest.raises(ValueError, match="could not be read on"):
            read(path, bundle_info)


@pytest.mark.parametrize("point", [0x110000, 0xFFFFFFFF, 0xD800])
@pytest.mark.parametrize("order", ["<", ">"])
def test_code_points_that_are_none_are_an_error_of_their_row(tmp_path, bundle_info, point, order):
    fields = [("id", f"{order}U2"), ("input", "f4", HIDDEN), ("target", "i8")]
    array = np.zeros(3, dtype=fields)
    array["id"] = ["a", "bb", "c"]
    stream = io.BytesIO()
    np.save(stream, array)
    content, size = bytearray(stream.getvalue()), array.dtype.itemsize
    at = len(content) - 2 * size
    content[at : at + 4] = point.to_bytes(4, "little" if order == "<" else "big")
    path = tmp_path / "rows.npy"
    path.write_bytes(content)
    rows, ids = read(path, bundle_info)
    assert list(rows.row_errors) == [1]
    assert list(rows.ids) == ids == ["a", None, "c"]


@pytest.mark.parametrize("error", [KeyError("planted"), ValueError("planted"), OSError("planted")])
@pytest.mark.parametrize(
    ("extension", "where", "name"),
    [
        ("ndjson", ndjson, "_parsed_row"),
        ("csv", csv, "_parse_targets"),
        ("npy", npy, "_row_batch"),
        ("arrow", arrow_batch, "_float32"),
        ("parquet", arrow_batch, "_float32"),
    ],
)
def test_an_error_behind_a_boundary_is_not_the_rows(
    tmp_path, bundle_info, monkeypatch, extension, where, name, error
):
    path = write(tmp_path / f"rows.{extension}", make_rows(3))

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(where, name, broken)
    with pytest.raises(type(error)) as caught:
        read(path, bundle_info)
    assert caught.value is error
