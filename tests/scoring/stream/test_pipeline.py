"""Scoring a stream: records, summary, back-pressure and errors, as NDJSON and Arrow."""

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
from hsoftmax.scoring.requirements import RowRequirements
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.stream import (
    LineSplitter,
    LineStreamReader,
    LineStreamWriter,
    StreamSpec,
    StreamTotals,
    score_stream,
)
from hsoftmax.scoring.stream.arrow_records import ArrowStreamWriter
from hsoftmax.scoring.stream.arrow_rows import ArrowStreamReader
from tests.scoring.conftest import make_rows, table


def pieces(data: bytes, seed: int) -> Iterable[bytes]:
    """Yields the bytes in pieces of random size."""
    rng, start = random.Random(seed), 0
    while start < len(data):
        size = rng.randint(1, 400)
        yield data[start : start + size]
        start += size


async def run_at_once(function):
    return function()


@pytest.fixture
def stream_spec(bundle_info, reference) -> Callable[..., StreamSpec]:
    """Returns a function that builds a stream of lines, scored by the NumPy reference."""

    async def run_graph(request: GraphRequest, first_row: int):
        await asyncio.sleep(0)
        return reference(request)

    def build(task=Task("target_log_prob"), rows=7, **changes) -> StreamSpec:  # noqa: B008  frozen
        return StreamSpec(**{
            "task": task, "bundle_info": bundle_info, "reader": LineStreamReader(),
            "writer": LineStreamWriter(task, bundle_info),
            "run_graph": run_graph, "run_in_idle": run_at_once, "run_parse": run_at_once,
            "rows": lambda target_shape: rows, "max_pending": 3, "max_targets": 100, **changes,
        })  # fmt: skip

    return build


def collect(parts: Iterable[bytes], spec: StreamSpec, totals: StreamTotals | None = None) -> bytes:
    """Returns all bytes sent for a body of these parts."""
    pieces_sent = []

    async def body_parts():
        for part in parts:
            yield part

    async def send(piece: bytes) -> None:
        pieces_sent.append(piece)

    asyncio.run(score_stream(body_parts(), spec, send, totals or StreamTotals()))
    return b"".join(pieces_sent)


def body(count: int = 40) -> bytes:
    lines = [json.dumps(row).encode() for row in make_rows(count)]
    lines[3], lines[9] = b"", b"{"
    return b"\n".join(lines) + b"\n"


def test_records_do_not_depend_on_how_the_bytes_are_split(stream_spec):
    whole = collect([body()], stream_spec(rows=1000)).splitlines()
    assert len(whole) == 41
    for seed in range(5):
        got = collect(pieces(body(), seed), stream_spec()).splitlines()
        for line, expected in zip(got, whole, strict=True):
            record, right = json.loads(line), json.loads(expected)
            assert record.keys() == right.keys()
            assert record.get("id") == right.get("id")
            assert record.get("line") == right.get("line")
            assert record.get("log_prob") == pytest.approx(right.get("log_prob"))


def test_the_summary_counts_and_hashes_all_records(stream_spec):
    *results, last = collect(pieces(body(), 0), stream_spec()).splitlines(keepends=True)
    sha256 = hashlib.sha256(b"".join(results)).hexdigest()
    expected = {"rows_in": 40, "scored": 38, "failed": 2, "sha256": sha256}
    assert json.loads(last) == {"summary": expected}


def test_the_last_line_needs_no_newline(stream_spec):
    assert len(collect([body().rstrip(b"\n")], stream_spec()).splitlines()) == 41


def test_a_byte_order_mark_is_skipped(stream_spec):
    row = json.dumps(make_rows(1)[0]).encode()
    *_, last = collect([b"\xef\xbb", b"\xbf" + row], stream_spec()).splitlines()
    assert json.loads(last)["summary"]["failed"] == 0


def test_an_empty_stream_has_only_a_summary(stream_spec):
    (line,) = collect([], stream_spec()).splitlines()
    assert json.loads(line)["summary"]["rows_in"] == 0


def test_the_summary_has_the_perplexity(stream_spec):
    *_, last = collect([body()], stream_spec(Task("perplexity"))).splitlines()
    corpus = json.loads(last)["summary"]["corpus"]
    assert (corpus["words"], corpus["failed"]) == (38, 2)
    assert corpus["perplexity"] > 1


@pytest.mark.parametrize("max_sequences", [1, 3, 100])
def test_sequences_beyond_the_limit_are_reported_early(stream_spec, max_sequences):
    rows = make_rows(30)
    rows.append({**rows[0], "id": 30})  # of a sequence that has ended long ago
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    totals = StreamTotals(max_sequences=max_sequences)
    lines = collect([data], stream_spec(Task("perplexity"), rows=2), totals).splitlines()
    records = [json.loads(line) for line in lines]
    reports = [record["sequence_summary"] for record in records if "sequence_summary" in record]
    assert [r["sequence"] for r in reports][:10] == [f"s{i}" for i in range(10)]
    assert len(reports) == (10 if max_sequences == 100 else 11)
    by_row = sum(record["log_prob"] for record in records if "id" in record)
    assert sum(r["log_prob"] for r in reports) == pytest.approx(by_row)
    assert sum(r["words"] for r in reports) == 31 == records[-1]["summary"]["corpus"]["words"]


def test_an_invalid_task_is_refused_before_anything_is_sent(stream_spec):
    with pytest.raises(CallError):
        collect([body()], stream_spec(Task("top_k", k=999)))


def test_an_error_of_the_body_comes_after_the_records_before_it(stream_spec):
    def broken():
        yield body()
        raise BrokenInput("no more")

    pieces_sent = []

    async def body_parts():
        for part in broken():
            yield part

    async def send(piece: bytes) -> None:
        pieces_sent.append(piece)

    with pytest.raises(BrokenInput):
        asyncio.run(score_stream(body_parts(), stream_spec(), send, StreamTotals()))
    assert len(b"".join(pieces_sent).splitlines()) == 40


def test_reading_stops_at_the_maximum_of_pending_chunks(stream_spec):
    read = []

    async def body_parts():
        for row in make_rows(100):
            read.append(row)
            yield json.dumps(row).encode() + b"\n"

    async def main():
        credit = asyncio.Semaphore(3)

        async def send(piece: bytes) -> None:
            await credit.acquire()

        task = asyncio.create_task(
            score_stream(body_parts(), stream_spec(Task("log_probs")), send, StreamTotals())
        )
        await asyncio.sleep(0.2)
        assert len(read) <= 3 + 3 + 3  # sent, pending, and one in progress
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_too_long_line_is_not_kept_in_memory():
    splitter = LineSplitter(10)
    assert splitter.feed(b"short\n" + b"x" * 8) == [b"short"]
    assert splitter.feed(b"x" * 8) == []
    assert splitter._rest == b""
    assert splitter.feed(b"x\nnext\r\nla") == [None, b"next"]
    assert splitter.feed(b"st") == []
    assert splitter.end() == [b"last"]
    assert splitter.end() == []


def test_a_long_record_in_pieces_has_the_same_bytes(bundle_info, monkeypatch):
    columns = {
        "targets": np.arange(50)[None],
        "labels": np.array([["é"] * 50], dtype=object),
        "probabilities": np.random.default_rng(0).random((1, 50)),
    }
    results = RowResults([1], ["é"], np.array([0]), columns, {})
    writer = LineStreamWriter(Task("top_k"), bundle_info)
    (whole,) = writer.encode_rows(results, "one")
    monkeypatch.setattr("hsoftmax.scoring.stream.ndjson_records._MAX_NUMBERS", 7)
    parts = list(writer.encode_rows(results, "one"))
    assert len(parts) > 10
    assert b"".join(parts) == whole


# --- Arrow --------------------------------------------------------------------------------------


def stream(rows, size: int = 6, dictionary: bool = False) -> bytes:
    rows_table = table(rows)
    if dictionary:
        labels = pa.array([f"word{row['target'] % 10}" for row in rows])
        rows_table = rows_table.set_column(
            rows_table.schema.get_field_index("target"), "target", labels.dictionary_encode()
        )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows_table.schema) as writer:
        for batch in rows_table.to_batches(max_chunksize=size):
            writer.write_batch(batch)
    return sink.getvalue()


@pytest.mark.parametrize("dictionary", [False, True])
def test_arrow_input_may_be_split_anywhere(stream_spec, bundle_info, dictionary):
    data = stream(make_rows(40), dictionary=dictionary)
    outputs = {
        collect(pieces(data, seed), stream_spec(rows=1, reader=ArrowStreamReader(bundle_info)))
        for seed in range(4)
    }
    (output,) = outputs
    assert len(output.splitlines()) == 41
    assert json.loads(output.splitlines()[-1])["summary"]["failed"] == 0


def test_arrow_rows_that_share_bytes_are_read_a_few_at_a_time(stream_spec, bundle_info):
    """Each of 40 rows has the same id of 300 kB; one row names it a hundred times as a target."""
    rows, long = make_rows(40), pa.array(["x" * 300_000, "0"])
    names = [[0] * 100 if i == 3 else [1] for i in range(40)]
    words = pa.DictionaryArray.from_arrays(
        pa.array([n for row in names for n in row], pa.int32()), long
    )
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in names])]).astype(np.int32)
    batch = pa.record_batch({
        "id": pa.DictionaryArray.from_arrays(pa.array([0] * 40, pa.int32()), long),
        "input": pa.array([row["input"] for row in rows], pa.list_(pa.float32())),
        "targets": pa.ListArray.from_arrays(pa.array(offsets), words),
    })  # fmt: skip
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    reader = ArrowStreamReader(bundle_info)
    reader.rows = 40
    chunks = list(reader.feed(sink.getvalue()))
    assert [len(one) for one in chunks] == [1] * 40
    requirements = RowRequirements(bundle_info, "any")
    errors = [reader.parse(one, 1, requirements).row_errors for one in chunks]
    assert [i for i, one in enumerate(errors) if "16777216 bytes" in str(one)] == [3]


def test_damaged_arrow_streams_are_errors_or_harmless(stream_spec, bundle_info):
    """A damaged Arrow stream fails, or ends with a summary of no more rows than it had."""
    rows = make_rows(12)
    data = stream(rows)
    rng = random.Random(0)
    truncated = [data[: rng.randrange(len(data))] for _ in range(60)]
    for broken in truncated:
        with pytest.raises(BrokenInput):
            collect([broken], stream_spec(reader=ArrowStreamReader(bundle_info)))
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            output = collect([bytes(damaged)], stream_spec(reader=ArrowStreamReader(bundle_info)))
        except (BrokenInput, CallError):
            continue
        assert json.loads(output.splitlines()[-1])["summary"]["rows_in"] <= len(rows)


def test_arrow_output_reads_as_one_table(stream_spec, bundle_info):
    task = Task("top_k", k=2)
    reader = LineStreamReader()
    writer = ArrowStreamWriter(task, bundle_info, reader, {"model": "words"})
    output = collect([body()], stream_spec(task, reader=reader, writer=writer))
    result = pa.ipc.open_stream(output).read_all()
    assert result.num_rows == 40
    assert result.column("code").to_pylist().count("invalid_json") == 2
    assert result.schema.metadata == {b"model": b"words"}
