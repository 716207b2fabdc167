"""Shards are assembled while others are still made, whole and in order, or not at all."""

import hashlib
import threading
from dataclasses import replace

import pytest

from hsoftmax.scoring import CorruptShard, ScoringError, Task, find_format, workspace_path
from hsoftmax.scoring.formats import Position, RecordSchema
from hsoftmax.scoring.job.assembly import Assembler, assemble_output
from hsoftmax.scoring.job.checkpoint import Shard
from hsoftmax.scoring.job.output import OutputSpec
from hsoftmax.scoring.job.workspace import lock_workspace

LINES = [b'{"id":%d}\n' % i * 1000 for i in range(5)]


@pytest.fixture(params=["out.ndjson", "out"])
def output_spec(request, tmp_path):
    output = tmp_path / request.param
    record_schema = RecordSchema((), "int64", 1)
    return OutputSpec(
        output, find_format(tmp_path / "any.ndjson"), record_schema, Task("sample"), "words"
    )


@pytest.fixture
def workspace(output_spec):
    with lock_workspace(output_spec.path) as workspace:
        yield workspace


def shard(workspace, number):
    """Writes and returns a committed shard."""
    workspace.shard(number).write_bytes(LINES[number])
    sha256 = hashlib.sha256(LINES[number]).hexdigest()
    return Shard(number, 1000, 1000, 0, len(LINES[number]), sha256, Position(0, 0, 1))


def content(output_spec):
    """Returns the bytes of the temporary output; of a folder, its files one after another."""
    temp_path = workspace_path(output_spec.path) / "assembled.tmp"
    files = sorted(temp_path.iterdir()) if temp_path.is_dir() else [temp_path]
    return b"".join(path.read_bytes() for path in files)


def test_shards_are_assembled_as_they_are_added(output_spec, workspace):
    with Assembler(output_spec, workspace) as assembler:
        for number in range(5):
            assembler.add(shard(workspace, number))
        sha256 = assembler.result()
    assert content(output_spec) == b"".join(LINES)
    assert sha256 == hashlib.sha256(b"".join(LINES)).hexdigest()


def test_no_shards_give_an_empty_output(output_spec, workspace):
    assert assemble_output(output_spec, workspace, []) == hashlib.sha256().hexdigest()
    assert content(output_spec) == b""


def test_an_earlier_temporary_output_is_overwritten(output_spec, workspace):
    for count in (3, 2):
        shards = [shard(workspace, number) for number in range(count)]
        assemble_output(output_spec, workspace, shards)
        assert content(output_spec) == b"".join(LINES[:count])


def test_leaving_the_block_early_cancels_the_assembly(output_spec, workspace):
    with Assembler(output_spec, workspace) as assembler:
        assembler.add(shard(workspace, 0))
    with pytest.raises(ScoringError, match="was left"):
        assembler.result()


def test_a_later_add_raises_for_a_corrupt_shard(output_spec, workspace):
    first, corrupt = shard(workspace, 0), shard(workspace, 1)
    workspace.shard(1).write_bytes(b"else")

    def add_endlessly(assembler):
        assembler.add(first)
        assembler.add(corrupt)
        while True:
            assembler.add(first)

    with (
        Assembler(output_spec, workspace) as assembler,
        pytest.raises(CorruptShard, match="shard-00000001: expected SHA-256") as raised,
    ):
        add_endlessly(assembler)
    assert raised.value.number == 1


def test_on_wait_can_cancel_during_a_write(output_spec, workspace):
    writing = threading.Event()

    def endless(shards, to, record_schema):
        for _ in shards:
            writing.set()
            while True:
                to.write(b"x")

    class Stop(Exception):
        pass

    def stop():
        writing.wait()
        raise Stop

    output_spec = replace(output_spec, format=replace(output_spec.format, assemble=endless))
    with Assembler(output_spec, workspace) as assembler:
        assembler.add(shard(workspace, 0))
        with pytest.raises(Stop):
            assembler.result(stop)
