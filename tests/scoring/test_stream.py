"""A stream of rows: the same records however the bytes come, a summary, and no more in memory."""

import asyncio
import hashlib
import json
import random

import pytest

from scoring import CallError, Task
from scoring.stream import LineSplitter, stream_records

from .conftest import make_rows


def pieces(data: bytes, seed: int):
    """The bytes, cut anywhere."""
    rng, start = random.Random(seed), 0
    while start < len(data):
        size = rng.randint(1, 400)
        yield data[start : start + size]
        start += size


@pytest.fixture
def answers(facts, reference):
    """Bytes in pieces -> the bytes of the answer."""

    def answers(body, task=Task("target_log_prob"), batch=7) -> bytes:  # noqa: B008  frozen
        async def run(asked):
            return reference(asked)

        async def sent():
            for part in body:
                yield part

        async def collect():
            found = stream_records(sent(), task, facts, run=run, batch=batch)
            return b"".join([part async for part in found])

        return asyncio.run(collect())

    return answers


def body(count=40) -> bytes:
    lines = [json.dumps(row).encode() for row in make_rows(count)]
    lines[3], lines[9] = b"", b"{"
    return b"\n".join(lines) + b"\n"


def test_however_the_bytes_come_the_records_are_the_same(answers):
    whole = answers([body()], batch=1000).splitlines()
    assert len(whole) == 41
    for seed in range(5):
        got = answers(pieces(body(), seed)).splitlines()
        for line, wanted in zip(got, whole, strict=True):
            record, right = json.loads(line), json.loads(wanted)
            assert record.keys() == right.keys()
            assert record.get("id") == right.get("id")
            assert record.get("line") == right.get("line")
            assert record.get("log_prob") == pytest.approx(right.get("log_prob"))


def test_the_summary_counts_and_hashes_what_came_before_it(answers):
    *records, last = answers(pieces(body(), 0)).splitlines(keepends=True)
    sha256 = hashlib.sha256(b"".join(records)).hexdigest()
    wanted = {"rows_in": 40, "scored": 38, "failed": 2, "sha256": sha256}
    assert json.loads(last) == {"summary": wanted}


def test_a_last_line_needs_no_newline(answers):
    assert len(answers([body().rstrip(b"\n")]).splitlines()) == 41


def test_no_rows_are_a_summary_alone(answers):
    (line,) = answers([]).splitlines()
    assert json.loads(line)["summary"]["rows_in"] == 0


def test_perplexity_is_in_the_summary(answers):
    *_, last = answers([body()], Task("perplexity")).splitlines()
    corpus = json.loads(last)["summary"]["corpus"]
    assert (corpus["words"], corpus["failed"]) == (38, 2)
    assert corpus["perplexity"] > 1


def test_a_task_that_cannot_be_answered_is_refused_before_anything_is_said(answers):
    with pytest.raises(CallError):
        answers([body()], Task("top_k", k=999))


def test_nothing_is_read_before_what_was_read_is_taken(facts, reference):
    read = []

    async def sent():
        for row in make_rows(100):
            read.append(row)
            yield json.dumps(row).encode() + b"\n"

    async def run(asked):
        return reference(asked)

    async def take_three():
        found = stream_records(sent(), Task("log_probs"), facts, run=run, batch=10)
        for _ in range(3):
            await anext(found)
        await found.aclose()

    asyncio.run(take_three())
    assert len(read) == 3


def test_a_line_too_long_to_hold_is_not_held(monkeypatch):
    monkeypatch.setattr("scoring.stream.LONGEST_LINE", 10)
    splitter = LineSplitter()
    assert splitter.feed(b"short\n" + b"x" * 8) == [b"short"]
    assert splitter.feed(b"x" * 8) == []
    assert splitter._rest == b""
    assert splitter.feed(b"x\nnext\r\nla") == [None, b"next"]
    assert splitter.feed(b"st") == []
    assert splitter.end() == [b"last"]
    assert splitter.end() == []
