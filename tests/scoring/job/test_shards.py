"""Where shards begin is found without reading rows, and is where reading would have come to."""

import os
from contextlib import closing

import pyarrow as pa
import pytest

from hsoftmax.scoring import (
    Columns,
    ScoringError,
    ShardStart,
    Task,
    build_job_spec,
    find_format,
    find_inputs,
    open_inputs,
    shard_ranges,
)
from tests.scoring.conftest import FORMATS, make_rows, table, write


@pytest.fixture
def open_job_spec(bundle_info, tmp_path):
    """An order over whatever is in a folder, with shards of seven rows."""

    def open_job_spec(folder):
        reader = open_inputs(find_inputs(folder), Columns(), bundle_info)
        return build_job_spec(
            reader, tmp_path / "out.ndjson", find_format(tmp_path / "out.ndjson"), bundle_info,
            Task("target_log_prob"), columns=Columns(), batch=3, shard_rows=7,
        )  # fmt: skip

    return open_job_spec


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def found(spec, start=None):
    start = start or ShardStart(0, 0, spec.reader.begin())
    return [(c.start.shard, c.start.first_row, c.rows) for c in shard_ranges(spec, start)]


def ids_from(spec, position):
    """The ids of all rows from here on."""
    ids = []
    while (block := spec.reader.read(position, 100)) is not None:
        ids += spec.reader.parse(block, spec.requirements).ids
        position = block.end
    return [int(id) for id in ids]


@pytest.mark.parametrize("of", FORMATS)
def test_reading_goes_on_where_a_shard_begins(open_job_spec, folder, of):
    rows = make_rows(25)
    write(folder / f"a.{of}", rows[:11])
    write(folder / f"b.{of}", rows[11:14])
    write(folder / f"c.{of}", rows[14:])
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert found(spec) == [(0, 0, 7), (1, 7, 7), (2, 14, 7), (3, 21, 4)]
        for cut in shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())):
            ids = ids_from(spec, cut.start.position)
            assert ids == list(range(cut.start.first_row, 25))


@pytest.mark.parametrize("of", FORMATS)
def test_from_the_middle_only_the_rest_is_found(open_job_spec, folder, of):
    write(folder / f"a.{of}", make_rows(25))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        third = [cut.start for cut in shard_ranges(spec, ShardStart(0, 0, spec.reader.begin()))][2]
        assert found(spec, third) == [(2, 14, 7), (3, 21, 4)]


def test_a_stream_of_arrow_is_read_on_from_a_shard_too(open_job_spec, folder):
    made = table(make_rows(25))
    with pa.ipc.new_stream(folder / "a.arrow", made.schema) as writer:
        writer.write_table(made, max_chunksize=4)
    spec = open_job_spec(folder)
    with closing(spec.reader):
        for cut in shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())):
            assert ids_from(spec, cut.start.position) == list(range(cut.start.first_row, 25))


def test_a_line_too_long_to_hold_is_a_row(open_job_spec, folder, monkeypatch):
    monkeypatch.setattr("hsoftmax.scoring.formats.line_reader.MAX_LINE_BYTES", 50)
    write(folder / "a.ndjson", make_rows(9))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert found(spec) == [(0, 0, 7), (1, 7, 2)]


def test_nothing_has_no_shards(open_job_spec, folder):
    (folder / "a.ndjson").write_bytes(b"")
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert found(spec) == []


def test_an_array_that_is_cut_short_while_it_is_read_is_said(open_job_spec, folder):
    path = write(folder / "a.npy", make_rows(25))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        block = spec.reader.read(spec.reader.begin(), 25)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ScoringError, match="npy: expected as many rows as when"):
            spec.reader.parse(block, spec.requirements)
