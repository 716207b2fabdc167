"""The boundaries of the decoders of bodies: damaged bytes are a 400, an error behind them a 500.

The errors behind a boundary have the types that decoders raise, so that a boundary which reaches
too far would take them for the client's.
"""

import gzip
import io
import json
import time

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from starlette.testclient import TestClient

from hsoftmax.scoring.formats import arrow_batch, ndjson
from hsoftmax.service import Settings, create_app
from hsoftmax.service.api import operations
from hsoftmax.service.codecs import arrow
from hsoftmax.service.http import decompression
from hsoftmax.service.jobs.upload_parser import UploadParser
from hsoftmax.service.logging import json_log
from tests.fuzz.npy_bombs import npy_bombs, npy_with_header
from tests.service.conftest import HIDDEN, expect_error, serving

MODEL = "/v1/models/words"
JSON, NPY = "application/json", "application/x-npy"
ARROW, LINES = "application/vnd.apache.arrow.stream", "application/x-ndjson"
ROW = [0.1] * HIDDEN
SCORE = f"{MODEL}/score?task=target_log_prob"

NOT_UTF8 = {
    f"{MODEL}/probabilities": b'{"inputs":[[0]],"targets":["caf\xe9"]}',
    f"{MODEL}/top_k": b'{"inputs":[[0]],"version":"caf\xe9"}',
    f"{MODEL}/clusters": b'{"inputs":[[0]],"\xe9":1}',
    f"{MODEL}/sample": b'{"inputs":"\xff"}',
    "/v1/batches": b'{"input_file_id":"file-\xe9","endpoint":"/v1/models/words/score"}',
}


def stream(columns: dict) -> bytes:
    sink, table = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def npy(matrix: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, matrix)
    return sink.getvalue()


def lines(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("url", NOT_UTF8)
def test_a_json_body_that_is_not_utf8_is_malformed(client, url):
    response = client.post(url, content=NOT_UTF8[url], headers={"content-type": JSON})
    expect_error(response, 400, "invalid_json", "UTF-8")


@pytest.mark.parametrize("number", range(len(npy_bombs())))
def test_no_header_of_an_npy_body_is_a_fault_of_the_service(client, number):
    response = client.post(
        f"{MODEL}/probabilities", content=npy_bombs()[number], headers={"content-type": NPY}
    )
    expected = {400: "unreadable_body", 422: "invalid_query"}  # a whole array of a wrong shape
    assert response.json()["code"] == expected.get(response.status_code), response.text


def test_shapes_that_multiply_to_the_right_number_are_refused(client):
    for shape in ("(-1,-8)", "(True,8)"):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        body = npy_with_header(text, content=bytes(4 * HIDDEN))
        response = client.post(
            f"{MODEL}/probabilities", content=body, headers={"content-type": NPY}
        )
        expect_error(response, 400, "unreadable_body")


def test_a_row_that_is_not_utf8_is_an_error_in_its_place(client):
    good = json.dumps({"id": "a", "input": ROW, "target": 0}).encode()
    body = b"\n".join(
        (good, good.replace(b'"a"', b'"caf\xe9"'), good.replace(b"0}", b'"caf\xe9"}'), good)
    )
    response = client.post(SCORE, content=body, headers={"content-type": LINES})
    *records, last = lines(response.content)
    assert [record.get("code") for record in records] == [
        None,
        "invalid_json",
        "invalid_json",
        None,
    ]
    assert [record["id"] for record in records] == ["a", None, "a", "a"]
    assert last["summary"]["rows_in"] == 4


def test_a_field_that_is_skipped_may_have_any_bytes(client):
    good = json.dumps({"id": "a", "input": ROW, "target": 0}).encode()
    body = good.replace(b"{", b'{"note":"caf\xe9",')
    (record, last) = lines(
        client.post(SCORE, content=body, headers={"content-type": LINES}).content
    )
    assert (record["id"], last["summary"]["scored"]) == ("a", 1)


def test_arrow_text_that_is_not_utf8_is_an_error_in_its_place(client):
    text = pa.array([b"a", b"caf\xe9", b"b"], pa.binary()).view(pa.string())
    body = stream({"id": text, "input": pa.array([ROW] * 3), "target": [0, 1, 2]})
    headers = {"content-type": ARROW, "accept": LINES}
    *records, last = lines(client.post(SCORE, content=body, headers=headers).content)
    assert [record.get("code") for record in records] == [None, "invalid_query", None]
    assert [record["id"] for record in records] == ["a", None, "b"]
    assert last["summary"]["scored"] == 2


@pytest.fixture(scope="module")
def logged(repository, tmp_path_factory):
    """A client of a service with files and jobs, and the stream of its log."""
    log = io.BytesIO()
    app = create_app(
        Settings(repository=repository, threads=1, state=tmp_path_factory.mktemp("state")),
        log=json_log("error", log),
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        while "being loaded" in client.get("/healthz/ready").text:
            pass
        yield client, log


QUERY = json.dumps({"inputs": [ROW]}).encode()
LINE = json.dumps({"input": ROW, "target": 0}).encode()
MATRIX = npy(np.full((1, HIDDEN), 0.5, np.float32))
TABLE = stream({"inputs": pa.array([ROW])})
ROWS = stream({"input": pa.array([ROW]), "target": [0]})
BEHIND = {
    "json": (operations, "check_body_shape", QUERY, {"content-type": JSON}),
    "json plan": (operations, "_is_sliced", QUERY, {"content-type": JSON}),
    "npy": (operations, "build_query", MATRIX, {"content-type": NPY}),
    "arrow": (arrow, "_read_matrix", TABLE, {"content-type": ARROW}),
    "gzip": (operations, "decode", gzip.compress(QUERY), {"content-encoding": "gzip"}),
    "zstd": (operations, "decode", zstandard.compress(QUERY), {"content-encoding": "zstd"}),
    "gzip members": (
        decompression._MemberDecompressor, "_start_member", gzip.compress(QUERY),
        {"content-encoding": "gzip"},
    ),
}  # fmt: skip
ERRORS = [
    UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "planted"),
    KeyError("planted"),
    ValueError("planted"),
    OverflowError("planted"),
]


def broken(error: Exception):
    def raise_error(*_: object, **__: object) -> None:
        raise error

    return raise_error


def expect_logged_500(response, log: io.BytesIO, error: Exception) -> None:
    """Assert that the response is a 500, and wait until the log has its error."""
    expect_error(response, 500, "internal")
    request_id, faults = response.headers["x-request-id"], []
    for _ in range(500):
        faults = [event for event in lines(log.getvalue()) if event.get("request_id") == request_id]
        if faults:
            break
        time.sleep(0.01)
    assert [fault["event"] for fault in faults] == ["internal_error"]
    assert type(error).__name__ in faults[0]["exception"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", BEHIND)
def test_an_error_behind_the_boundary_of_a_body_is_a_logged_500(logged, monkeypatch, place, error):
    client, log = logged
    where, name, body, headers = BEHIND[place]
    url = f"{MODEL}/probabilities"
    assert client.post(url, content=body, headers=headers).status_code == 200
    monkeypatch.setattr(where, name, broken(error))
    expect_logged_500(client.post(url, content=body, headers=headers), log, error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("where", "name", "body", "media_type"),
    [(ndjson, "_parsed_row", LINE, LINES), (arrow_batch, "_float32", ROWS, ARROW)],
    ids=["ndjson", "arrow"],
)
def test_an_error_behind_the_boundary_of_a_row_is_a_logged_500(
    logged, monkeypatch, where, name, body, media_type, error
):
    client, log = logged
    headers = {"content-type": media_type}
    assert client.post(SCORE, content=body, headers=headers).status_code == 200
    monkeypatch.setattr(where, name, broken(error))
    expect_logged_500(client.post(SCORE, content=body, headers=headers), log, error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["_on_part_data", "_on_headers_finished", "_on_end"])
def test_an_error_behind_the_boundary_of_an_upload_is_a_logged_500(
    logged, monkeypatch, name, error
):
    client, log = logged
    upload = {"files": {"file": ("rows.ndjson", LINE)}, "data": {"purpose": "batch"}}
    assert client.post("/v1/files", **upload).status_code == 200
    monkeypatch.setattr(UploadParser, name, broken(error))
    expect_logged_500(client.post("/v1/files", **upload), log, error)


@pytest.mark.parametrize(
    "part",
    [b"a: " + b"b" * 10_000, b"a" * 10_000 + b": b", b"a: b\r\n" * 20_000],
    ids=["value", "name", "many"],
)
def test_the_headers_of_a_part_are_bounded(repository, tmp_path, part):
    body = b"--edge\r\n" + part + b"\r\n\r\nx\r\n--edge--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    with serving(repository, state=tmp_path / "state") as client:
        response = client.post("/v1/files", content=body, headers=headers)
    assert response.status_code in {400, 413, 422}, response.text
