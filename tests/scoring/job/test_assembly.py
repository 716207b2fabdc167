"""Shards become one output while others are still made: whole and in order, or nothing at all."""

import hashlib
import threading
from dataclasses import replace

import pytest

from hsoftmax.scoring import ScoringError, SpoiledShard, Task, find_format, workspace_of
from hsoftmax.scoring.formats import Layout, Position
from hsoftmax.scoring.job.assembly import Assembly, put_together
from hsoftmax.scoring.job.checkpoint import Shard
from hsoftmax.scoring.job.output import Delivery
from hsoftmax.scoring.job.workspace import hold

LINES = [b'{"id":%d}\n' % i * 1000 for i in range(5)]


@pytest.fixture(params=["out.ndjson", "out"])
def delivery(request, tmp_path):
    output = tmp_path / request.param
    layout = Layout((), "int64", 1)
    return Delivery(output, find_format(tmp_path / "any.ndjson"), layout, Task("sample"), "words")


@pytest.fixture
def workspace(delivery):
    with hold(delivery.output) as workspace:
        yield workspace


def shard(workspace, number):
    """One that is in its place."""
    workspace.shard(number).write_bytes(LINES[number])
    sha256 = hashlib.sha256(LINES[number]).hexdigest()
    return Shard(number, 1000, 1000, 0, len(LINES[number]), sha256, Position(0, 0, 1))


def content(delivery):
    """What lies aside, of a folder that of its files one after another."""
    aside = workspace_of(delivery.output) / "assembled.tmp"
    files = sorted(aside.iterdir()) if aside.is_dir() else [aside]
    return b"".join(path.read_bytes() for path in files)


def test_shards_are_taken_as_they_come(delivery, workspace):
    with Assembly(delivery, workspace) as assembly:
        for number in range(5):
            assembly.add(shard(workspace, number))
        sha256 = assembly.result()
    assert content(delivery) == b"".join(LINES)
    assert sha256 == hashlib.sha256(b"".join(LINES)).hexdigest()


def test_none_at_all_is_an_empty_output(delivery, workspace):
    assert put_together(delivery, workspace, []) == hashlib.sha256().hexdigest()
    assert content(delivery) == b""


def test_what_was_left_before_is_written_over(delivery, workspace):
    for count in (3, 2):
        shards = [shard(workspace, number) for number in range(count)]
        put_together(delivery, workspace, shards)
        assert content(delivery) == b"".join(LINES[:count])


def test_who_leaves_early_does_not_wait_for_the_rest(delivery, workspace):
    with Assembly(delivery, workspace) as assembly:
        assembly.add(shard(workspace, 0))
    with pytest.raises(ScoringError, match="was left"):
        assembly.result()


def test_a_spoilt_shard_is_named_at_one_of_the_next(delivery, workspace):
    first, spoilt = shard(workspace, 0), shard(workspace, 1)
    workspace.shard(1).write_bytes(b"else")

    def add_for_ever(assembly):
        assembly.add(first)
        assembly.add(spoilt)
        while True:
            assembly.add(first)

    with (
        Assembly(delivery, workspace) as assembly,
        pytest.raises(SpoiledShard, match="shard-00000001: expected SHA-256") as raised,
    ):
        add_for_ever(assembly)
    assert raised.value.number == 1


def test_who_waits_may_give_up_at_any_write(delivery, workspace):
    begun = threading.Event()

    def slow(shards, to, layout):
        for _ in shards:
            begun.set()
            while True:
                to.write(b"x")

    class Stop(Exception):
        pass

    def stop():
        begun.wait()
        raise Stop

    delivery = replace(delivery, format=replace(delivery.format, assemble=slow))
    with Assembly(delivery, workspace) as assembly:
        assembly.add(shard(workspace, 0))
        with pytest.raises(Stop):
            assembly.result(stop)
