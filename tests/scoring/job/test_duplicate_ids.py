"""The search for duplicate ids counts every row and finds every duplicate, in every format."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.scoring import Columns, detect_columns, find_duplicate_ids, open_inputs
from hsoftmax.scoring.job import duplicate_ids
from hsoftmax.scoring.job.duplicate_ids import mark_duplicates
from hsoftmax.scoring.requirements import row_requirements
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import Task
from tests.scoring.conftest import FORMATS, make_rows, write


class IdReader:
    """A reader that has ids only."""

    def __init__(self, ids, batch: int) -> None:
        self._parts = [ids[i : i + batch] for i in range(0, len(ids), batch)]

    def ids(self):
        yield from self._parts


def expected_duplicates(ids) -> list[list[int]]:
    first: dict = {}
    duplicates = []
    for i, id in enumerate(ids):
        if id is None:
            continue
        key = (type(id), id)
        if key in first:
            duplicates.append([i, first[key]])
        first.setdefault(key, i)
    return duplicates


TEXTS = ["1", "-1", "a", "é", "\ud800", ""]
IDS = st.lists(st.none() | st.integers(-3, 3) | st.sampled_from(TEXTS))


@given(ids=IDS, batch=st.integers(1, 5), max_sorted=st.sampled_from([1, 3, 1000]))
def test_duplicates_equal_those_found_with_a_dictionary(tmp_path_factory, ids, batch, max_sorted):
    path = tmp_path_factory.mktemp("survey") / "survey.npy"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(duplicate_ids, "_MAX_SORTED_IDS", max_sorted)
        patched.setattr(duplicate_ids, "_MAX_READ_IDS", batch)
        result = find_duplicate_ids(IdReader(ids, batch), path, lambda: None)
    assert result.rows == len(ids)
    assert result.duplicates.tolist() == expected_duplicates(ids)
    assert [file.name for file in path.parent.iterdir()] == ["survey.npy"]


def test_check_cancelled_stops_the_search(tmp_path):
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        find_duplicate_ids(IdReader([1, 2], 1), tmp_path / "survey.npy", stop)
    assert not (tmp_path / "survey.npy").exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["id", "custom_id", None])
def test_ids_equal_those_of_the_parsed_rows(tmp_path, bundle_info, kind, name):
    rows = make_rows(11)
    for row in rows:
        id = row.pop("id")
        if name is not None:
            row[name] = id
    path = write_named(tmp_path / f"rows.{kind}", rows, name)
    columns = detect_columns([path], Columns())
    assert columns.id == ("custom_id" if name == "custom_id" else "id")
    reader = open_inputs([path, path], columns, bundle_info)
    ids = [id for batch in reader.ids() for id in batch]
    parsed = [id for rows in parse_all(reader, bundle_info) for id in rows.ids]
    assert ids == parsed
    expected = [None if name is None else i for i in range(11)] * 2
    assert ids == [str(i) if kind == "csv" and i is not None else i for i in expected]
    reader.close()


def write_named(path, rows, name):
    """Writes rows with another id field; for NPY, `write` knows the type of `id` only."""
    if path.suffix != ".npy" or name != "custom_id":
        return write(path, rows)
    write(path, [{("id" if k == name else k): v for k, v in row.items()} for row in rows])
    array = np.load(path)
    renamed = [("custom_id" if n == "id" else n) for n in array.dtype.names]
    array.dtype.names = tuple(renamed)
    np.save(path, array)
    return path


def parse_all(reader, bundle_info):
    position = reader.begin()
    requirements = row_requirements(Task("target_log_prob"), False, bundle_info)
    while (raw_batch := reader.read(position, 4)) is not None:
        yield reader.parse(raw_batch, requirements)
        position = raw_batch.end


def test_ids_of_invalid_lines(tmp_path, bundle_info):
    lines = [
        b'{"id": 1, "input": [NaN]}',
        b'{"id": "a", "input": "no list"}',
        b'{"id": 2.5, "input": []}',
        b"",
        b"{nothing",
        b'{"input": [1e999], "id": 3}',
        b'{"id": 4, "target": 1, "targets": [1], "input": []}',
        b'{"id": true}',
        b"[1]",
    ]
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    reader = open_inputs([path], Columns(), bundle_info)
    ids = [id for batch in reader.ids() for id in batch]
    assert ids == [id for rows in parse_all(reader, bundle_info) for id in rows.ids]
    assert ids == [1, "a", None, None, None, 3, 4, None, None]
    reader.close()


def test_a_duplicate_gets_an_error_and_loses_its_targets():
    rows = RowBatch(
        lines=range(11, 15),
        ids=["a", "b", "a", "c"],
        hidden=np.zeros((4, 2), np.float32),
        target=np.array([1, 2, 3, 4, 5]),
        counts=np.array([1, 2, 1, 1]),
        listed=np.array([False, True, False, False]),
        sequences=[None] * 4,
        oov=frozenset({2}),
        row_errors={},
    )
    duplicates = np.array([[3, 1], [11, 5], [12, 10], [40, 2]])
    marked = mark_duplicates(rows, 10, duplicates)
    assert {i: row_error.code for i, row_error in marked.row_errors.items()} == {
        1: "duplicate_id",
        2: "duplicate_id",
    }
    assert str(marked.row_errors[2]) == "id: expected each once, got 'a' again, as in row 11"
    assert marked.target.tolist() == [1, 5]
    assert marked.counts.tolist() == [1, 0, 0, 1]
    assert marked.oov == frozenset()
    assert mark_duplicates(rows, 20, duplicates) is rows
    assert mark_duplicates(
        replace(rows, row_errors={1: marked.row_errors[1]}), 10, duplicates
    ).row_errors.keys() == {
        1,
        2,
    }
