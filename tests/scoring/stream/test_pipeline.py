"""A stream of rows: the same records however the bytes come, a summary, and no more in memory."""

import asyncio
import hashlib
import io
import json
import random
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.scoring import CallError, GraphRequest, Task
from hsoftmax.scoring.errors import BrokenInput
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.stream import (
    LineSplitter,
    LineStreamReader,
    LineStreamWriter,
    StreamSpec,
    StreamTotals,
    score_stream,
)
from hsoftmax.scoring.stream.arrow import ArrowStreamReader, ArrowStreamWriter
from tests.scoring.conftest import make_rows, table


def pieces(data: bytes, seed: int) -> Iterable[bytes]:
    """The bytes, cut anywhere."""
    rng, start = random.Random(seed), 0
    while start < len(data):
        size = rng.randint(1, 400)
        yield data[start : start + size]
        start += size


async def at_once(function):
    return function()


@pytest.fixture
def asked(bundle_info, reference) -> Callable[..., StreamSpec]:
    """What is asked of a stream of lines, answered by the oracle."""

    async def run(question: GraphRequest, first_row: int):
        await asyncio.sleep(0)
        return reference(question)

    def asked(task=Task("target_log_prob"), rows=7, **changed) -> StreamSpec:  # noqa: B008  frozen
        return StreamSpec(**{
            "task": task, "bundle_info": bundle_info, "reader": LineStreamReader(),
            "writer": LineStreamWriter(task, bundle_info), "run_graph": run, "run_in_idle": at_once,
            "rows": lambda target_shape: rows, "max_pending": 3, "max_targets": 100, **changed,
        })  # fmt: skip

    return asked


def collect(parts: Iterable[bytes], asked: StreamSpec, totals: StreamTotals | None = None) -> bytes:
    """All that a stream of these parts gives."""
    given = []

    async def sent():
        for part in parts:
            yield part

    async def give(piece: bytes) -> None:
        given.append(piece)

    asyncio.run(score_stream(sent(), asked, give, totals or StreamTotals()))
    return b"".join(given)


def body(count: int = 40) -> bytes:
    lines = [json.dumps(row).encode() for row in make_rows(count)]
    lines[3], lines[9] = b"", b"{"
    return b"\n".join(lines) + b"\n"


def test_however_the_bytes_come_the_records_are_the_same(asked):
    whole = collect([body()], asked(rows=1000)).splitlines()
    assert len(whole) == 41
    for seed in range(5):
        got = collect(pieces(body(), seed), asked()).splitlines()
        for line, wanted in zip(got, whole, strict=True):
            record, right = json.loads(line), json.loads(wanted)
            assert record.keys() == right.keys()
            assert record.get("id") == right.get("id")
            assert record.get("line") == right.get("line")
            assert record.get("log_prob") == pytest.approx(right.get("log_prob"))


def test_the_summary_counts_and_hashes_what_came_before_it(asked):
    *results, last = collect(pieces(body(), 0), asked()).splitlines(keepends=True)
    sha256 = hashlib.sha256(b"".join(results)).hexdigest()
    wanted = {"rows_in": 40, "scored": 38, "failed": 2, "sha256": sha256}
    assert json.loads(last) == {"summary": wanted}


def test_a_last_line_needs_no_newline(asked):
    assert len(collect([body().rstrip(b"\n")], asked()).splitlines()) == 41


def test_a_mark_of_byte_order_is_no_mistake(asked):
    row = json.dumps(make_rows(1)[0]).encode()
    *_, last = collect([b"\xef\xbb", b"\xbf" + row], asked()).splitlines()
    assert json.loads(last)["summary"]["failed"] == 0


def test_no_rows_are_a_summary_alone(asked):
    (line,) = collect([], asked()).splitlines()
    assert json.loads(line)["summary"]["rows_in"] == 0


def test_perplexity_is_in_the_summary(asked):
    *_, last = collect([body()], asked(Task("perplexity"))).splitlines()
    corpus = json.loads(last)["summary"]["corpus"]
    assert (corpus["words"], corpus["failed"]) == (38, 2)
    assert corpus["perplexity"] > 1


@pytest.mark.parametrize("most", [1, 3, 100])
def test_sequences_are_told_once_they_are_more_than_are_held(asked, most):
    rows = make_rows(30)
    rows.append({**rows[0], "id": 30})  # of a sequence that has ended long ago
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    totals = StreamTotals(max_sequences=most)
    found = collect([data], asked(Task("perplexity"), rows=2), totals).splitlines()
    told = [json.loads(line) for line in found]
    reports = [one["sequence_summary"] for one in told if "sequence_summary" in one]
    assert [r["sequence"] for r in reports][:10] == [f"s{i}" for i in range(10)]
    assert len(reports) == (10 if most == 100 else 11)
    by_row = sum(one["log_prob"] for one in told if "id" in one)
    assert sum(r["log_prob"] for r in reports) == pytest.approx(by_row)
    assert sum(r["words"] for r in reports) == 31 == told[-1]["summary"]["corpus"]["words"]


def test_a_task_that_cannot_be_answered_is_refused_before_anything_is_said(asked):
    with pytest.raises(CallError):
        collect([body()], asked(Task("top_k", k=999)))


def test_what_a_source_raises_comes_after_what_it_gave(asked):
    def broken():
        yield body()
        raise BrokenInput("no more")

    given = []

    async def sent():
        for part in broken():
            yield part

    async def give(piece: bytes) -> None:
        given.append(piece)

    with pytest.raises(BrokenInput):
        asyncio.run(score_stream(sent(), asked(), give, StreamTotals()))
    assert len(b"".join(given).splitlines()) == 40


def test_no_more_is_read_than_may_be_on_its_way(asked):
    read = []

    async def sent():
        for row in make_rows(100):
            read.append(row)
            yield json.dumps(row).encode() + b"\n"

    async def main():
        taken = asyncio.Semaphore(3)

        async def give(piece: bytes) -> None:
            await taken.acquire()

        task = asyncio.create_task(
            score_stream(sent(), asked(Task("log_probs")), give, StreamTotals())
        )
        await asyncio.sleep(0.2)
        assert len(read) <= 3 + 3 + 3  # given, on their way, and in hands
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_line_too_long_to_hold_is_not_held():
    splitter = LineSplitter(10)
    assert splitter.feed(b"short\n" + b"x" * 8) == [b"short"]
    assert splitter.feed(b"x" * 8) == []
    assert splitter._rest == b""
    assert splitter.feed(b"x\nnext\r\nla") == [None, b"next"]
    assert splitter.feed(b"st") == []
    assert splitter.end() == [b"last"]
    assert splitter.end() == []


def test_a_long_record_is_written_in_pieces_and_the_same(bundle_info, monkeypatch):
    columns = {
        "targets": np.arange(50)[None],
        "labels": np.array([["é"] * 50], dtype=object),
        "probabilities": np.random.default_rng(0).random((1, 50)),
    }
    results = RowResults([1], ["é"], np.array([0]), columns, {})
    writer = LineStreamWriter(Task("top_k"), bundle_info)
    (whole,) = writer.encode_rows(results, "one")
    monkeypatch.setattr("hsoftmax.scoring.stream.ndjson._MAX_NUMBERS", 7)
    parts = list(writer.encode_rows(results, "one"))
    assert len(parts) > 10
    assert b"".join(parts) == whole


# --- Arrow --------------------------------------------------------------------------------------


def stream(rows, size: int = 6, dictionary: bool = False) -> bytes:
    made = table(rows)
    if dictionary:
        labels = pa.array([f"word{row['target'] % 10}" for row in rows])
        made = made.set_column(
            made.schema.get_field_index("target"), "target", labels.dictionary_encode()
        )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        for batch in made.to_batches(max_chunksize=size):
            writer.write_batch(batch)
    return sink.getvalue()


@pytest.mark.parametrize("dictionary", [False, True])
def test_arrow_in_any_pieces_is_the_same(asked, bundle_info, dictionary):
    data = stream(make_rows(40), dictionary=dictionary)
    found = {
        collect(pieces(data, seed), asked(rows=1, reader=ArrowStreamReader(bundle_info)))
        for seed in range(4)
    }
    (one,) = found
    assert len(one.splitlines()) == 41
    assert json.loads(one.splitlines()[-1])["summary"]["failed"] == 0


def test_whatever_is_cut_or_changed_is_said_or_harmless(asked, bundle_info):
    """No byte of an Arrow stream can cost more than the stream, nor end it as if it were whole."""
    rows = make_rows(12)
    data = stream(rows)
    rng = random.Random(0)
    cut = [data[: rng.randrange(len(data))] for _ in range(60)]
    for broken in cut:
        with pytest.raises(BrokenInput):
            collect([broken], asked(reader=ArrowStreamReader(bundle_info)))
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            given = collect([bytes(changed)], asked(reader=ArrowStreamReader(bundle_info)))
        except (BrokenInput, CallError):
            continue
        assert json.loads(given.splitlines()[-1])["summary"]["rows_in"] <= len(rows)


def test_arrow_out_reads_as_one_table(asked, bundle_info):
    task = Task("top_k", k=2)
    reader = LineStreamReader()
    writer = ArrowStreamWriter(task, bundle_info, reader, {"model": "words"})
    given = collect([body()], asked(task, reader=reader, writer=writer))
    found = pa.ipc.open_stream(given).read_all()
    assert found.num_rows == 40
    assert found.column("code").to_pylist().count("invalid_json") == 2
    assert found.schema.metadata == {b"model": b"words"}
