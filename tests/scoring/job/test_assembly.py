"""Shards become one output while others are still made: whole and in order, or nothing at all."""

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
    """One that is in its place."""
    workspace.shard(number).write_bytes(LINES[number])
    sha256 = hashlib.sha256(LINES[number]).hexdigest()
    return Shard(number, 1000, 1000, 0, len(LINES[number]), sha256, Position(0, 0, 1))


def content(output_spec):
    """What lies aside, of a folder that of its files one after another."""
    aside = workspace_path(output_spec.path) / "assembled.tmp"
    files = sorted(aside.iterdir()) if aside.is_dir() else [aside]
    return b"".join(path.read_bytes() for path in files)


def test_shards_are_taken_as_they_come(output_spec, workspace):
    with Assembler(output_spec, workspace) as assembler:
        for number in range(5):
            assembler.add(shard(workspace, number))
        sha256 = assembler.result()
    assert content(output_spec) == b"".join(LINES)
    assert sha256 == hashlib.sha256(b"".join(LINES)).hexdigest()


def test_none_at_all_is_an_empty_output(output_spec, workspace):
    assert assemble_output(output_spec, workspace, []) == hashlib.sha256().hexdigest()
    assert content(output_spec) == b""


def test_what_was_left_before_is_written_over(output_spec, workspace):
    for count in (3, 2):
        shards = [shard(workspace, number) for number in range(count)]
        assemble_output(output_spec, workspace, shards)
        assert content(output_spec) == b"".join(LINES[:count])


def test_who_leaves_early_does_not_wait_for_the_rest(output_spec, workspace):
    with Assembler(output_spec, workspace) as assembler:
        assembler.add(shard(workspace, 0))
    with pytest.raises(ScoringError, match="was left"):
        assembler.result()


def test_a_spoilt_shard_is_named_at_one_of_the_next(output_spec, workspace):
    first, spoilt = shard(workspace, 0), shard(workspace, 1)
    workspace.shard(1).write_bytes(b"else")

    def add_for_ever(assembler):
        assembler.add(first)
        assembler.add(spoilt)
        while True:
            assembler.add(first)

    with (
        Assembler(output_spec, workspace) as assembler,
        pytest.raises(CorruptShard, match="shard-00000001: expected SHA-256") as raised,
    ):
        add_for_ever(assembler)
    assert raised.value.number == 1


def test_who_waits_may_give_up_at_any_write(output_spec, workspace):
    begun = threading.Event()

    def slow(shards, to, record_schema):
        for _ in shards:
            begun.set()
            while True:
                to.write(b"x")

    class Stop(Exception):
        pass

    def stop():
        begun.wait()
        raise Stop

    output_spec = replace(output_spec, format=replace(output_spec.format, assemble=slow))
    with Assembler(output_spec, workspace) as assembler:
        assembler.add(shard(workspace, 0))
        with pytest.raises(Stop):
            assembler.result(stop)
