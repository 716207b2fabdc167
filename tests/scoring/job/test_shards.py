"""Where shards begin is found without reading rows, and is where reading would have come to."""

import os
from contextlib import closing

import pyarrow as pa
import pytest

from hsoftmax.scoring import (
    Columns,
    ScoringError,
    Start,
    Task,
    cuts,
    find_format,
    find_inputs,
    make_order,
    open_inputs,
)
from tests.scoring.conftest import FORMATS, make_rows, table, write


@pytest.fixture
def open_order(facts, tmp_path):
    """An order over whatever is in a folder, with shards of seven rows."""

    def open_order(folder):
        source = open_inputs(find_inputs(folder), Columns(), facts)
        return make_order(
            source, tmp_path / "out.ndjson", find_format(tmp_path / "out.ndjson"), facts,
            Task("target_log_prob"), columns=Columns(), batch=3, shard_rows=7,
        )  # fmt: skip

    return open_order


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def found(order, start=None):
    start = start or Start(0, 0, order.source.begin())
    return [(c.start.shard, c.start.first_row, c.rows) for c in cuts(order, start)]


def ids_from(order, position):
    """The ids of all rows from here on."""
    ids = []
    while (block := order.source.read(position, 100)) is not None:
        ids += order.source.parse(block, order.reading).ids
        position = block.end
    return [int(id) for id in ids]


@pytest.mark.parametrize("of", FORMATS)
def test_reading_goes_on_where_a_shard_begins(open_order, folder, of):
    rows = make_rows(25)
    write(folder / f"a.{of}", rows[:11])
    write(folder / f"b.{of}", rows[11:14])
    write(folder / f"c.{of}", rows[14:])
    order = open_order(folder)
    with closing(order.source):
        assert found(order) == [(0, 0, 7), (1, 7, 7), (2, 14, 7), (3, 21, 4)]
        for cut in cuts(order, Start(0, 0, order.source.begin())):
            ids = ids_from(order, cut.start.position)
            assert ids == list(range(cut.start.first_row, 25))


@pytest.mark.parametrize("of", FORMATS)
def test_from_the_middle_only_the_rest_is_found(open_order, folder, of):
    write(folder / f"a.{of}", make_rows(25))
    order = open_order(folder)
    with closing(order.source):
        third = [cut.start for cut in cuts(order, Start(0, 0, order.source.begin()))][2]
        assert found(order, third) == [(2, 14, 7), (3, 21, 4)]


def test_a_stream_of_arrow_is_read_on_from_a_shard_too(open_order, folder):
    made = table(make_rows(25))
    with pa.ipc.new_stream(folder / "a.arrow", made.schema) as writer:
        writer.write_table(made, max_chunksize=4)
    order = open_order(folder)
    with closing(order.source):
        for cut in cuts(order, Start(0, 0, order.source.begin())):
            assert ids_from(order, cut.start.position) == list(range(cut.start.first_row, 25))


def test_a_line_too_long_to_hold_is_a_row(open_order, folder, monkeypatch):
    monkeypatch.setattr("hsoftmax.scoring.formats.line_reader.LONGEST_LINE", 50)
    write(folder / "a.ndjson", make_rows(9))
    order = open_order(folder)
    with closing(order.source):
        assert found(order) == [(0, 0, 7), (1, 7, 2)]


def test_nothing_has_no_shards(open_order, folder):
    (folder / "a.ndjson").write_bytes(b"")
    order = open_order(folder)
    with closing(order.source):
        assert found(order) == []


def test_an_array_that_is_cut_short_while_it_is_read_is_said(open_order, folder):
    path = write(folder / "a.npy", make_rows(25))
    order = open_order(folder)
    with closing(order.source):
        block = order.source.read(order.source.begin(), 25)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ScoringError, match="npy: expected as many rows as when"):
            order.source.parse(block, order.reading)
