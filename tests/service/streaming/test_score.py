"""POST /v1/models/{name}/score: every task in both media types, and errors of rows and streams."""

import gzip
import hashlib
import io
import json
import sys

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from hsoftmax.models.hierarchical_softmax import log_probs, target_log_prob, top_k
from hsoftmax.scoring.stream import pipeline
from tests.service.conftest import HIDDEN, LABELS, SERVED, TARGETS, TOLERANCE, expect_error, serving

NEWEST = SERVED["words", 2]
LINES, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
TASKS = (
    "target_log_prob", "probabilities", "top_k", "log_probs", "sample", "perplexity", "hidden",
)  # fmt: skip


def make_rows(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"id": i, "input": rng.normal(size=HIDDEN).astype(np.float32).tolist(),
         "target": int(rng.integers(TARGETS)), "sequence": f"s{i // 3}"}
        for i in range(count)
    ]  # fmt: skip


def lines(rows: list) -> bytes:
    """Encode rows as NDJSON. A row of bytes becomes a line as it is."""
    encoded = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    return b"".join(line + b"\n" for line in encoded)


def arrow_stream(rows: list[dict], size: int = 4, **types: pa.DataType) -> bytes:
    """Encode rows as an Arrow stream with `size` rows in a batch."""
    types = {"input": pa.list_(pa.float32()), **types}
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    sink = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=size)
    return sink.getvalue()


def post(
    client, body: bytes, media_type: str = LINES, accept: str = "*/*", name: str = "words", **url
):
    headers = {"content-type": media_type, "accept": accept, "accept-encoding": "identity"}
    return client.post(f"/v1/models/{name}/score", content=body, headers=headers, params=url)


def read_lines(content: bytes) -> tuple[list[dict], list[dict], dict]:
    """Return (records, sequences, summary) of an NDJSON response, after checking the summary."""
    *before, last = content.splitlines(keepends=True)
    summary = json.loads(last)["summary"]
    assert summary["sha256"] == hashlib.sha256(b"".join(before)).hexdigest()
    items = [json.loads(line) for line in before]
    records = [record for record in items if "id" in record]
    sequences = [item["sequence_summary"] for item in items if "sequence_summary" in item]
    assert len(records) + len(sequences) == len(items)
    return _checked_counts(records, summary), sequences, summary


def read_arrow(content: bytes) -> tuple[list[dict], list[dict], dict]:
    """Return (records, sequences, summary) of an Arrow response, read with pyarrow."""
    source = pa.BufferReader(content)
    reader = pa.ipc.open_stream(source)
    records, metadata_json, last_start = [], {}, 0
    while True:
        batch_start = source.tell()
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        records += batch.to_pylist()
        for name, value in (metadata or {}).items():
            metadata_json[name.decode()] = json.loads(value)
            last_start = batch_start
    assert metadata_json["summary"]["sha256"] == hashlib.sha256(content[:last_start]).hexdigest()
    summary = metadata_json["summary"]
    return _checked_counts(records, summary), metadata_json.get("sequences", []), summary


def _checked_counts(records: list[dict], summary: dict) -> list[dict]:
    failed = sum(record.get("error") is not None for record in records)
    assert summary["rows_in"] == len(records) == summary["scored"] + failed
    assert summary["failed"] == failed
    return records


READ = {LINES: read_lines, ARROW: read_arrow}
WRITE = {LINES: lines, ARROW: arrow_stream}


def score(client, rows: list, media_type: str = LINES, accept: str = LINES, **url):
    """Send the rows as `media_type` and return (records, sequences, summary)."""
    response = post(client, WRITE[media_type](rows), media_type, accept, **url)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == accept
    return READ[accept](response.content)


# --- tasks and media types ------------------------------------------------------------------------


def expect_correct(task: str, records: list[dict], rows: list[dict]) -> None:
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    target = np.array([row["target"] for row in rows])
    full = log_probs(NEWEST, hidden)
    pairs = target_log_prob(NEWEST, hidden, np.arange(len(rows)), target)
    got = {name: [record[name] for record in records] for name in records[0]}
    match task:
        case "target_log_prob" | "perplexity":
            np.testing.assert_allclose(got["log_prob"], pairs, atol=TOLERANCE)
        case "probabilities":
            np.testing.assert_allclose(got["probabilities"], np.exp(pairs), rtol=1e-4)
        case "log_probs":
            np.testing.assert_allclose(got["log_probs"], full, atol=TOLERANCE)
        case "top_k":
            log_prob, wanted = top_k(NEWEST, hidden, 3)
            assert got["targets"] == wanted.tolist()
            assert got["labels"] == [[LABELS[t] for t in some] for some in wanted]
            np.testing.assert_allclose(got["probabilities"], np.exp(log_prob), rtol=1e-4)
            assert all(got["exact"])
        case "hidden":
            np.testing.assert_array_equal(np.array(got["hidden"], dtype=np.float32), hidden)
        case _:
            drawn = np.array(got["targets"])
            assert drawn.shape == (len(rows), 5)
            wanted = np.exp(np.take_along_axis(full, drawn, axis=1))
            np.testing.assert_allclose(got["probabilities"], wanted, rtol=1e-4)


@pytest.mark.parametrize("task", ["top_k", "log_probs"])
def test_large_results_are_built_in_a_thread_and_are_the_same(client, monkeypatch, task):
    body = lines(make_rows(6))
    inline = post(client, body, task=task)
    monkeypatch.setattr(pipeline, "_MAX_INLINE_NUMBERS", 0)
    in_thread = post(client, body, task=task)
    assert in_thread.status_code == 200
    assert in_thread.content == inline.content


@pytest.mark.parametrize("accept", [LINES, ARROW])
@pytest.mark.parametrize("media_type", [LINES, ARROW])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_answered_in_both_media_types(client, task, media_type, accept):
    rows = make_rows(10)
    records, sequences, summary = score(
        client, rows, media_type, accept, task=task, k=3, num_samples=5
    )
    ids = [row["id"] for row in rows]
    textual = accept == ARROW and media_type == LINES  # ids of JSON rows may be numbers or strings
    assert [record["id"] for record in records] == (list(map(str, ids)) if textual else ids)
    expect_correct(task, records, rows)
    assert ("corpus" in summary) == bool(sequences) == (task == "perplexity")


def test_probabilities_without_targets_are_all_of_them(client):
    rows = [{"id": row["id"], "input": row["input"]} for row in make_rows(5)]
    wanted = np.exp(log_probs(NEWEST, np.array([r["input"] for r in rows], dtype=np.float32)))
    for media_type in (LINES, ARROW):
        for accept in (LINES, ARROW):
            records, *_ = score(client, rows, media_type, accept, task="probabilities")
            got = [record["probabilities"] for record in records]
            np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_targets_are_lists_and_labels(client):
    rows = [{"id": "a", "input": row["input"], "targets": ["word1", "étoile"]}
            for row in make_rows(3)]  # fmt: skip
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    wanted = log_probs(NEWEST, hidden)[:, [1, TARGETS - 1]]
    for media_type in (LINES, ARROW):
        for accept in (LINES, ARROW):
            records, *_ = score(client, rows, media_type, accept)
            got = [record["log_prob"] for record in records]
            np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


def test_samples_do_not_depend_on_how_the_body_is_split(client, ask):
    rows = make_rows(7)
    wanted = ask("sample", inputs=[row["input"] for row in rows], num_samples=3, seed=9)["results"]
    body = lines(rows)
    for parts in ([body], [body[i : i + 100] for i in range(0, len(body), 100)]):
        response = post(client, iter(parts), task="sample", num_samples=3, seed=9)
        records, *_ = read_lines(response.content)
        assert [record["targets"] for record in records] == [item["targets"] for item in wanted]


def test_columns_of_numbers_are_an_input_too(client):
    rows = make_rows(3)
    columns = {f"h{i}": [row["input"][i] for row in rows] for i in range(HIDDEN)}
    table = pa.table({**columns, "target": [row["target"] for row in rows]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    records, *_ = READ[ARROW](post(client, sink.getvalue(), ARROW).content)
    expect_correct("target_log_prob", records, rows)
    assert [record["id"] for record in records] == [None] * 3


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_either_line_end_change_nothing(client, end):
    for count in (1, 3):
        some = make_rows(count)
        body = "\ufeff" + end.join(json.dumps(row) for row in some)
        response = post(client, body.encode(), LINES)
        records, _, summary = read_lines(response.content)
        assert summary["failed"] == 0
        expect_correct("target_log_prob", records, some)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_stream_of_another_encoding_is_refused(client, encoding):
    for end in ("\n", ""):
        body = (json.dumps(make_rows(1)[0]) + end).encode(encoding)
        sentence = f"body: expected UTF-8 text, got {encoding[:6].upper()}: save it as UTF-8"
        expect_error(post(client, body, LINES), 400, "unreadable_body", sentence)


def test_a_stream_without_rows_is_only_a_summary(client):
    for media_type, nothing in ((LINES, b""), (ARROW, arrow_stream(make_rows(1))[:0])):
        response = post(client, nothing, LINES, media_type)
        records, _, summary = READ[media_type](response.content)
        assert (records, summary["rows_in"]) == ([], 0)


def test_the_answer_says_whose_it_is(client, repository):
    digest = client.get("/v1/models/words").json()["digest"]
    response = post(client, lines(make_rows(2)), accept=ARROW)
    assert response.headers["x-hsoftmax-digest"] == digest
    metadata = pa.ipc.open_stream(response.content).schema.metadata
    assert metadata == {b"model": b"words", b"version": b"2"}


def test_an_older_version_can_be_asked(client):
    rows = make_rows(4)
    records, *_ = score(client, rows, version="1")
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    target = np.array([row["target"] for row in rows])
    wanted = target_log_prob(SERVED["words", 1], hidden, np.arange(4), target)
    np.testing.assert_allclose([r["log_prob"] for r in records], wanted, atol=TOLERANCE)


@pytest.mark.parametrize(
    "media_type",
    ["application/jsonl", "application/json; charset=utf-8", "text/plain", "",
     "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_lines_have_many_names(client, media_type):
    response = post(client, lines(make_rows(2)), media_type)
    assert response.headers["content-type"] == LINES
    assert len(response.content.splitlines()) == 3


# --- perplexity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [LINES, ARROW])
def test_perplexity_is_given_by_sequence_and_for_the_corpus(client, accept):
    rows = make_rows(10)
    rows[4]["target"] = "nobody"
    records, sequences, summary = score(
        client, rows, accept=accept, task="perplexity", oov="exclude", log_base=2
    )
    assert [record["oov"] for record in records] == [i == 4 for i in range(10)]
    assert records[4]["log_prob"] is None
    by_row = {i: r["log_prob"] for i, r in enumerate(records) if i != 4}
    assert [item["sequence"] for item in sequences] == ["s0", "s1", "s2", "s3"]
    assert [item["words"] for item in sequences] == [3, 2, 3, 1]
    for i, item in enumerate(sequences):
        total = sum(by_row[j] for j in range(3 * i, min(10, 3 * i + 3)) if j != 4)
        assert item["log_prob"] == pytest.approx(total, rel=1e-5)
        assert item["perplexity"] == pytest.approx(2 ** (-total / item["words"]), rel=1e-5)
    corpus = summary["corpus"]
    assert (corpus["words"], corpus["oov"], corpus["failed"]) == (9, 1, 0)
    assert corpus["log_prob"] == pytest.approx(sum(by_row.values()), rel=1e-5)


# --- bad rows -----------------------------------------------------------------------------------

BAD = {
    b"": ("invalid_json", "blank line"),
    b"{": ("invalid_json", "expected JSON"),
    b"[1, 2]": ("invalid_query", "expected an object"),
    b'{"id": 7, "input": [1, 2], "target": 1}': ("invalid_query", f"expected {HIDDEN} numbers"),
    b'{"id": 7, "target": 1}': ("invalid_query", "input: expected a value, got none"),
    b'{"id": 7, "input": "no", "target": 1}': ("invalid_query", "expected 8 numbers, got text"),
    b'{"id": 7, "input": [1,2,3,4,5,6,7,NaN], "target": 1}': ("invalid_query", "finite"),
    b'{"id": 7, "input": [1,2,3,4,5,6,7,1e39], "target": 1}': ("invalid_query", "finite"),
    b'{"id": 7, "input": [1,2,3,4,5,6,7,8]}': ("invalid_query", "target: expected a value"),
    b'{"id": 7, "input": [1,2,3,4,5,6,7,8], "target": 11}': ("target_out_of_range", "0 to 10"),
    b'{"id": 7, "input": [1,2,3,4,5,6,7,8], "target": "x"}': ("unknown_label", "no label 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("accept", [LINES, ARROW])
def test_a_bad_line_fails_alone(client, accept):
    rows = make_rows(3 * len(BAD))
    right, *_ = score(client, rows, accept=accept)
    for i, line in enumerate(BAD):
        rows[3 * i + 1] = line
    records, *_ = score(client, rows, accept=accept)
    for i, record in enumerate(records):
        if not isinstance(rows[i], bytes):
            assert record == right[i] | {"log_prob": pytest.approx(right[i]["log_prob"], abs=1e-5)}
            continue
        code, sentence = BAD[rows[i]]
        assert (record["line"], record["code"]) == (i + 1, code)
        assert sentence in record["error"]
        assert record["id"] == (None if b"id" not in rows[i] else "7" if accept == ARROW else 7)


@pytest.mark.parametrize("first", [b"", b"{", b"[]"])
def test_a_bad_first_line_does_not_decide_the_target_shape(client, first):
    rows = [{"id": row["id"], "input": row["input"]} for row in make_rows(4)]
    records, *_ = score(client, [first, *rows], task="probabilities")
    assert records[0]["line"] == 1
    assert [len(record["probabilities"]) for record in records[1:]] == [TARGETS] * 4


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"  ", "expected a JSON object, got a blank line"),
        (b'{"id": 1, "inp', "expected JSON, which this is not: it breaks off"),
        (b"[" * 100_000, "expected a JSON object, got one that is nested too deeply"),
        (b'{"id": 9223372036854775808}', "id: expected an integer from -9223372036854775807 to "),
        (
            b'{"target": -1' + b"0" * 30 + b"}",
            "target: expected an integer from -92233720368547758",
        ),
        (b'{"input": [1' + b"0" * 400 + b"]}", "input[0]: expected a finite number, got one bey"),
    ],
)
def test_the_error_of_a_bad_line_says_what_was_expected(client, line, sentence):
    records, *_ = score(client, [line, *make_rows(1)])
    assert records[0]["error"].startswith(sentence)
    assert "code" not in records[1]


def test_one_bad_line_in_100_000_fails_alone(client):
    line = json.dumps(make_rows(1)[0]).encode() + b"\n"
    body = line * 60_000 + b'{"id": 1, "input": [1,\n' + line * 39_999
    response = post(client, body)
    content = response.content.splitlines()
    assert len(content) == 100_001
    assert json.loads(content[60_000])["line"] == 60_001
    kept = [json.loads(line) for line in {*content[:60_000], *content[60_001:-1]}]
    assert {record["id"] for record in kept} == {0}  # the last digit may differ in a batch
    expect_correct("target_log_prob", kept, make_rows(1) * len(kept))
    wanted = {"rows_in": 100_000, "scored": 99_999, "failed": 1}
    assert wanted.items() <= json.loads(content[-1])["summary"].items()


def test_a_line_too_long_to_hold_is_one_record(client):
    rows = [*make_rows(1), b'{"id": 1, "input": [' + b"0," * 2**23 + b"0]}", *make_rows(2)]
    records, *_ = score(client, rows)
    assert [record.get("code") for record in records] == [None, "too_large", None, None]


def test_a_row_with_too_many_targets_is_one_record(repository):
    rows = make_rows(3)
    rows[1] = {"id": 1, "input": rows[1]["input"], "targets": [1] * 9}
    with serving(repository, max_targets=8) as client:
        records, *_ = score(client, rows)
    assert [record.get("code") for record in records] == [None, "too_large", None]
    assert "expected at most 8 in a row, got 9" in records[1]["error"]


@pytest.mark.parametrize("accept", [LINES, ARROW])
def test_a_bad_row_of_columns_fails_alone(client, accept):
    rows = make_rows(8)
    rows[2]["input"] = [1.0, 2.0]
    rows[3]["input"] = None
    rows[4]["input"] = [*rows[4]["input"][:-1], float("nan")]
    rows[5]["target"] = 99
    rows[6]["target"] = None
    records, *_ = score(client, rows, ARROW, accept)
    codes = [record.get("code") for record in records]
    assert codes == [None, None, *["invalid_query"] * 3, "target_out_of_range", "invalid_query",
                     None]  # fmt: skip
    assert [record["line"] for record in records if record.get("code")] == [3, 4, 5, 6, 7]


# --- bad streams --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ({"task": "guess"}, "task: expected one of target_log_prob, probabilities, top_k, "),
        ({"tusk": "sample"}, "unknown field 'tusk': expected task, k, max_blocks, "),
        ({"task": "top_k", "k": 0}, "k: expected 1 to 11, got 0"),
        ({"task": "top_k", "k": "many"}, "k: expected an integer, got 'many'"),
        ({"task": "top_k", "max_blocks": -1}, "max_blocks: expected 0 to "),
        ({"task": "sample", "num_samples": 0}, "num_samples: expected 1 to "),
        ({"task": "sample", "seed": -1}, "seed: expected 0 to "),
        ({"task": ["sample", "top_k"]}, "task: expected once, got it again"),
        ({"oov": "guess"}, "oov: expected error or exclude, got 'guess'"),
        ({"log_base": 1}, "log_base: expected a positive number that is not 1, got 1.0"),
        ({"log_base": "inf"}, "log_base: expected"),
    ],
)
def test_an_invalid_parameter_is_an_error(client, url, sentence):
    expect_error(post(client, b"", **url), 422, "invalid_query", sentence)


def test_unknown_names_and_media_types_are_errors(client, repository, copy):
    expect_error(post(client, b"", name="nobody"), 404, "unknown_bundle")
    expect_error(post(client, b"", version="9"), 404, "unknown_version")
    expect_error(post(client, b"", "image/png"), 415, "unsupported_media_type", "x-ndjson")
    expect_error(post(client, b"", accept="image/png"), 406, "not_acceptable", "x-ndjson")


def test_without_pyarrow_lines_still_work(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    expect_error(post(client, b"", ARROW), 415, "unsupported_media_type", "extra `arrow`")
    expect_error(post(client, b"", accept=ARROW), 406, "not_acceptable", "extra `arrow`")
    assert post(client, lines(make_rows(2))).status_code == 200


COMPRESS = {"gzip": gzip.compress, "zstd": zstandard.compress}


def send_packed(client, packed: bytes, encoding: str):
    headers = {"content-encoding": encoding, "accept-encoding": "identity"}
    return client.post("/v1/models/words/score", content=packed, headers=headers)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_is_expanded(client, encoding):
    body = lines(make_rows(2000))
    compress = COMPRESS[encoding]
    packed = compress(body[:10_000]) + compress(body[10_000:])
    parts = iter([packed[i : i + 1000] for i in range(0, len(packed), 1000)])
    response = send_packed(client, parts, encoding)
    records, *_ = read_lines(response.content)
    expect_correct("target_log_prob", records, make_rows(2000))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_decompression_bomb_is_refused_after_the_rows_before_it(client, encoding):
    bomb = COMPRESS[encoding](bytes(2**25))
    sentence = "body: expected at most 256 times its size when expanded"
    expect_error(send_packed(client, bomb, encoding), 413, "too_large", sentence)
    response = send_packed(client, COMPRESS[encoding](lines(make_rows(5))) + bomb, encoding)
    *records, last = map(json.loads, response.content.splitlines())
    expect_correct("target_log_prob", records, make_rows(5))
    wanted = {"error": sentence, "code": "too_large"}
    assert last == wanted | {"request_id": response.headers["x-request-id"]}


def test_a_long_line_that_was_compressed_well_is_one_record(client):
    rows = [*make_rows(1), b"[" + b"0," * 2**23, *make_rows(2)]
    # Random text at the end keeps the compression ratio within its bound.
    noise = np.random.default_rng(0).bytes(2**17).hex().encode()
    response = send_packed(client, gzip.compress(lines([*rows, noise])), "gzip")
    records, *_ = read_lines(response.content)
    assert [r.get("code") for r in records] == [None, "too_large", None, None, "invalid_json"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_that_is_not_compressed_as_it_says_is_refused(client, encoding):
    compress = COMPRESS[encoding]
    for body in (compress(b"{}" * 100)[:-9], b"no", compress(b"")[:-1]):
        expect_error(send_packed(client, body, encoding), 400, "unreadable_body", encoding)


def test_an_unknown_encoding_is_refused(client):
    response = client.post(
        "/v1/models/words/score", content=b"", headers={"content-encoding": "br"}
    )
    expect_error(response, 415, "unsupported_media_type", "content-encoding: expected gzip, zstd")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_response_is_compressed_for_a_client_that_accepts_it(client, encoding):
    body = lines(make_rows(100))
    with client.stream(
        "POST", "/v1/models/words/score", content=body, headers={"accept-encoding": encoding}
    ) as response:
        packed = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == encoding
    expanded = (
        gzip.decompress(packed)
        if encoding == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    )
    expect_correct("target_log_prob", read_lines(expanded)[0], make_rows(100))


def arrow_body(**columns: pa.Array) -> bytes:
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


INPUT = pa.array([[0.5] * HIDDEN] * 2)


def test_a_target_beyond_int64_is_quoted_unchanged(client):
    column = pa.array([2**64 - 1, 3], pa.uint64())
    body = arrow_body(input=INPUT, target=column)
    records, *_ = read_lines(post(client, body, ARROW, LINES).content)
    assert records[0]["error"] == f"target: expected 0 to {TARGETS - 1}, got {2**64 - 1}"
    assert "log_prob" in records[1]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"inputs": INPUT}, "columns: expected input, or h0 to h7, got inputs"),
        ({"input": pa.array(["a", "b"])}, "input: expected lists of 8 numbers, got string"),
        ({"input": pa.array([["a"], ["b"]])}, "input: expected lists of 8 numbers"),
        (
            {"input": pa.array([[0.5] * 3] * 2, pa.list_(pa.float32(), 3))},
            "input: expected 8 numbers in a row, got 3",
        ),
        (
            {"input": INPUT, "target": pa.array([True, False])},
            "target: expected integers or strings",
        ),
        ({"input": INPUT, "id": pa.array([b"a", b"b"])}, "id: expected integers or strings"),
    ],
)
def test_columns_of_a_wrong_type_are_refused(client, columns, sentence):
    expect_error(post(client, arrow_body(**columns), ARROW), 422, "invalid_query", sentence)


def test_an_invalid_arrow_stream_is_refused(client):
    whole = arrow_stream(make_rows(8))
    for body, sentence in [
        (b"not arrow at all", "which this is not"),
        (whole + b"\n", "cut short"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "at most 16777216 bytes"),
        (whole[:100], "cut short"),
        (whole[:-8] + whole, "expected one schema, got another"),
    ]:
        response = post(client, body, ARROW, ARROW)
        if response.status_code == 200:
            assert sentence.encode() in response.content
        else:
            expect_error(response, 400, "unreadable_body", sentence)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_give_the_same_records(client, compression):
    plain = arrow_stream(make_rows(50), size=20)
    table = pa.ipc.open_stream(plain).read_all()
    packed = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(packed, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=20)
    assert packed.getvalue() != plain
    got, expected = (
        post(client, body, ARROW, LINES).content for body in (packed.getvalue(), plain)
    )
    assert got == expected


@pytest.mark.parametrize("kind", ["batch", "dictionary"])
def test_buffers_that_are_too_large_when_decompressed_are_refused(client, kind):
    count = 2**24 // 4 + 1
    zeros = pa.array(np.zeros(count, np.int32))
    columns = {"input": pa.array([[0.5] * HIDDEN])}
    columns |= {"target": pa.array(["x" * 2**24]).dictionary_encode()}
    if kind == "batch":
        lists = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), zeros)
        columns = {"input": columns["input"], "more": lists}
    sink, table = io.BytesIO(), pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    assert len(sink.getvalue()) < 10_000
    response = post(client, sink.getvalue(), ARROW)
    expect_error(response, 400, "unreadable_body", "at most 16777216 bytes")


def test_a_batch_too_large_to_hold_is_refused(client):
    count = 2**24 // (4 * HIDDEN) + 1
    flat = pa.array(np.zeros(count * HIDDEN, dtype=np.float32))
    column = pa.FixedSizeListArray.from_arrays(flat, HIDDEN)
    response = post(client, arrow_body(input=column), ARROW, task="top_k")
    expect_error(response, 400, "unreadable_body", "write fewer rows in each")


@pytest.mark.parametrize(
    "encoded", [pa.Array.dictionary_encode, lambda labels: labels.cast(pa.string_view())]
)
def test_labels_may_be_dictionaries_or_views(client, encoded):
    rows = make_rows(9)
    labels = encoded(pa.array([LABELS[row["target"]] for row in rows]))
    inputs = pa.array([row["input"] for row in rows])
    table = pa.table({"input": inputs, "target": labels})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=4):
            writer.write_batch(batch)
    records, *_ = READ[LINES](post(client, sink.getvalue(), ARROW, LINES).content)
    expect_correct("target_log_prob", records, rows)


@pytest.mark.parametrize("media_type", [LINES, ARROW])
@pytest.mark.parametrize("task", TASKS[:-1])  # `hidden` has no logits
def test_logits_that_overflow_are_the_error_of_their_row(client, media_type, task):
    rows = make_rows(40)
    rows[17]["input"] = [3e38] * 4 + [0.0] * (HIDDEN - 4)
    records, *_ = score(client, rows, media_type, LINES, task=task, k=3)
    assert [i for i, record in enumerate(records) if "error" in record] == [17]
    assert records[17]["code"] == "logits_overflow"
    assert "expected numbers whose logits are within float32" in records[17]["error"]
    assert "Infinity" not in json.dumps(records)
