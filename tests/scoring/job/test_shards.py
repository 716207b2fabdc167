"""Shard ranges, found without parsing rows, begin where reading the rows arrives."""

import json
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
    make_shard,
    open_inputs,
    shard_ranges,
)
from tests.scoring.conftest import FORMATS, make_rows, table, write


@pytest.fixture
def open_job_spec(bundle_info, tmp_path):
    """Returns a function that opens a folder as a job with shards of seven rows."""

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


@pytest.mark.parametrize("of", ["parquet", "csv"])
def test_the_partitions_of_a_folder_are_read_in_the_order_of_their_paths(open_job_spec, folder, of):
    rows = make_rows(12)
    parts = ("day=1/lang=de", "day=1/lang=fr", "day=2/lang=de", "logs")
    for number, part in enumerate(parts):
        (folder / part).mkdir(parents=True)
        write(folder / part / f"part-0.{of}", rows[3 * number : 3 * number + 3])
    (folder / "_SUCCESS").touch()
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert ids_from(spec, spec.reader.begin()) == [int(row["id"]) for row in rows[:9]]


def ranges(spec, start=None):
    start = start or ShardStart(0, 0, spec.reader.begin())
    return [(c.start.shard, c.start.first_row, c.rows) for c in shard_ranges(spec, start)]


def ids_from(spec, position):
    """Returns the ids of all rows from a position on."""
    ids = []
    while (raw_batch := spec.reader.read(position, 100)) is not None:
        ids += spec.reader.parse(raw_batch, spec.requirements).ids
        position = raw_batch.end
    return [int(id) for id in ids]


@pytest.mark.parametrize("of", FORMATS)
def test_reading_can_start_at_any_shard(open_job_spec, folder, of):
    rows = make_rows(25)
    write(folder / f"a.{of}", rows[:11])
    write(folder / f"b.{of}", rows[11:14])
    write(folder / f"c.{of}", rows[14:])
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert ranges(spec) == [(0, 0, 7), (1, 7, 7), (2, 14, 7), (3, 21, 4)]
        for shard_range in shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())):
            ids = ids_from(spec, shard_range.start.position)
            assert ids == list(range(shard_range.start.first_row, 25))


@pytest.mark.parametrize("of", FORMATS)
def test_ranges_from_a_later_start_are_the_remaining_ones(open_job_spec, folder, of):
    write(folder / f"a.{of}", make_rows(25))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        first = ShardStart(0, 0, spec.reader.begin())
        starts = [shard_range.start for shard_range in shard_ranges(spec, first)]
        assert ranges(spec, starts[2]) == [(2, 14, 7), (3, 21, 4)]


def test_a_shard_made_alone_has_its_own_rows(open_job_spec, folder, reference, tmp_path):
    write(folder / "a.ndjson", make_rows(25))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        for shard_range in shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())):
            written = make_shard(spec, reference, shard_range, tmp_path / "shard")
            lines = (tmp_path / "shard").read_text().splitlines()
            first = shard_range.start.first_row
            assert [int(json.loads(line)["id"]) for line in lines] == list(
                range(first, first + shard_range.rows)
            )
            assert (written.shard.rows, written.shard.failed) == (shard_range.rows, 0)


def test_an_arrow_stream_file_can_be_read_from_any_shard(open_job_spec, folder):
    rows = table(make_rows(25))
    with pa.ipc.new_stream(folder / "a.arrow", rows.schema) as writer:
        writer.write_table(rows, max_chunksize=4)
    spec = open_job_spec(folder)
    with closing(spec.reader):
        for shard_range in shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())):
            assert ids_from(spec, shard_range.start.position) == list(
                range(shard_range.start.first_row, 25)
            )


def test_a_too_long_line_counts_as_a_row(open_job_spec, folder, monkeypatch):
    monkeypatch.setattr("hsoftmax.scoring.formats.line_reader.MAX_LINE_BYTES", 50)
    write(folder / "a.ndjson", make_rows(9))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert ranges(spec) == [(0, 0, 7), (1, 7, 2)]


def test_an_empty_input_has_no_shards(open_job_spec, folder):
    (folder / "a.ndjson").write_bytes(b"")
    spec = open_job_spec(folder)
    with closing(spec.reader):
        assert ranges(spec) == []


def test_an_array_truncated_while_it_is_read_is_an_error(open_job_spec, folder):
    path = write(folder / "a.npy", make_rows(25))
    spec = open_job_spec(folder)
    with closing(spec.reader):
        raw_batch = spec.reader.read(spec.reader.begin(), 25)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ScoringError, match="npy: expected as many rows as when"):
            spec.reader.parse(raw_batch, spec.requirements)


def test_the_fraction_counts_the_files_before_and_the_bytes_of_this_one(open_job_spec, folder):
    write(folder / "a.ndjson", make_rows(12))
    write(folder / "b.ndjson", make_rows(12))
    sizes = [(folder / name).stat().st_size for name in ("a.ndjson", "b.ndjson")]
    spec = open_job_spec(folder)
    with closing(spec.reader):
        position = spec.reader.begin()
        assert spec.reader.fraction(position) == 0
        position, _ = spec.reader.skip(position, 12)
        at_end_of_first = spec.reader.fraction(position)
        position, _ = spec.reader.skip(position, 6)
        assert at_end_of_first == sizes[0] / sum(sizes)
        assert spec.reader.fraction(position) > at_end_of_first
        assert spec.reader.fraction(spec.reader.skip(position, 6)[0]) == 1
