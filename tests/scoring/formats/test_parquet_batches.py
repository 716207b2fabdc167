"""A Parquet file is read as pyarrow reads it, and repeats no long text in memory."""

from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.scoring.formats.arrow_types import plain_batch
from hsoftmax.scoring.formats.parquet_batches import parquet_batches
from tests.scoring.test_decoders import INPUTS, read

MEBIBYTE = 2**20
TEXTS = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "b"]))
ROWS = st.lists(st.tuples(TEXTS, st.one_of(st.none(), st.lists(TEXTS, max_size=3))), max_size=20)


@given(rows=ROWS, group_rows=st.integers(1, 9), batch_rows=st.integers(1, 9), data=st.data())
def test_batches_are_the_rows_of_the_file(tmp_path_factory, rows, group_rows, batch_rows, data):
    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    ids, lists = ([row[i] for row in rows] for i in range(2))
    columns = {
        "id": pa.array(ids, pa.string()),
        "skipped": pa.array(ids, pa.string()),
        "targets": pa.array(lists, pa.list_(pa.string())),
        "number": pa.array(range(len(rows)), pa.int64()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    start = data.draw(st.integers(0, len(rows)))
    before, batches = parquet_batches(path, start, ["targets", "absent", "id"], batch_rows)
    plain = [plain_batch(batch, ()) for batch in batches]
    read = [row for batch in plain for row in batch.to_pylist()]
    assert before == start - start % group_rows or start == len(rows)
    assert all(batch.num_rows <= batch_rows for batch in plain)
    assert read == [{"id": one, "targets": many} for one, many in rows[before:]]


def write_repeated(path: Path, text: str, rows: int, *, lists: bool) -> None:
    """Write a text once, and name it in all rows; the file does not say that pyarrow did so."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text])
    if lists:
        column = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), column)
    pq.write_table(pa.table({"text": column}), path, store_schema=False)


@pytest.mark.parametrize("lists", [False, True])
def test_a_text_that_many_rows_name_is_not_copied_into_all(tmp_path, lists):
    path = tmp_path / "rows.parquet"
    write_repeated(path, "x" * 4 * MEBIBYTE, 10_000, lists=lists)
    assert path.stat().st_size < MEBIBYTE
    used = pa.total_allocated_bytes()
    _, batches = parquet_batches(path, 0, ["text"], 10_000)
    for batch in islice(batches, 5):
        assert pa.total_allocated_bytes() - used < 128 * MEBIBYTE
        assert batch.num_rows == (10_000 if lists else 4)


def test_a_list_that_names_too_many_bytes_is_an_error_of_its_row(tmp_path, bundle_info):
    path = tmp_path / "rows.parquet"
    word = "x" * MEBIBYTE
    targets = pa.array([["word1"], ["word2"], [word] * 17], pa.list_(pa.string()))
    pq.write_table(pa.table({"input": INPUTS, "targets": targets}), path)
    rows, _ = read(path, bundle_info)
    assert {i: "16777216 bytes" in str(error) for i, error in rows.row_errors.items()} == {2: True}
    assert rows.target.tolist() == [1, 2]
