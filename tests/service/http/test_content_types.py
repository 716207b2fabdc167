"""Tests that JSON, .npy and Arrow give the same results, whole and in slices."""

import asyncio
import decimal
import http.client
import io
import json
import sys
from collections.abc import AsyncIterator

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.service.api import operations
from hsoftmax.service.http.content_types import Format, response_type_of
from hsoftmax.service.inference.chunked_response import TruncatedError
from hsoftmax.service.inference.chunked_response import stream as send_slices
from hsoftmax.service.inference.encoders import matrix_encoder
from hsoftmax.service.inference.operations import MatrixResult
from tests.service.conftest import HIDDEN, TARGETS, TOLERANCE, expect_error, serving

URL = "/v1/models/words/"
NPY, ARROW = Format.NPY.value, Format.ARROW.value


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def stream(columns: dict, **options) -> bytes:
    sink = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table)
    return sink.getvalue()


def rows(matrix: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def arrow(response) -> pa.Table:
    assert response.headers["content-type"] == ARROW
    return pa.ipc.open_stream(response.content).read_all()


def post(client, operation: str, body: bytes, kind: str, accept: str = "*/*", **url):
    response = client.post(
        URL + operation, content=body, headers={"content-type": kind, "accept": accept}, params=url
    )
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_matrix_asks_as_its_numbers_do(client, ask, hidden, dtype, order):
    states = (hidden * 4).astype(dtype, order=order)
    expected = ask("probabilities", inputs=states.astype(float).tolist())
    assert post(client, "probabilities", npy(states), NPY).json() == expected


@pytest.mark.parametrize(
    ("url", "targets"),
    [
        ({"targets": "3,5,étoile"}, [3, 5, "étoile"]),
        ({"targets": ["3,7", "5", ""]}, [[3, 7], [5], []]),
        ({"log": "true", "targets": ["1", "word2", "3"], "version": "1"}, [[1], ["word2"], [3]]),
    ],
)
def test_targets_come_in_the_url(client, ask, hidden, url, targets):
    extra = {"log": True, "version": 1} if "log" in url else {}
    expected = ask("probabilities", inputs=hidden.tolist(), targets=targets, **extra)
    assert post(client, "probabilities", npy(hidden), NPY, **url).json() == expected


def test_one_row_has_one_list_of_targets(client, hidden):
    response = post(client, "probabilities", npy(hidden[:1]), NPY, targets="3,5")
    assert np.shape(response.json()["probabilities"]) == (1, 2)


def test_an_arrow_table_asks_as_its_numbers_do(client, ask, hidden):
    inputs = hidden.tolist()
    lists = pa.array(inputs, pa.list_(pa.float64()))
    for column in (rows(hidden), lists):
        expected = ask("top_k", inputs=inputs, k=3)
        assert post(client, "top_k", stream({"inputs": column}), ARROW, k="3").json() == expected
    for targets in (
        [3, 5, 0],
        [[3, 5], [], [1]],
        ["word1", "word2", "étoile"],
        [["word1"], [], []],
    ):
        body = stream({"inputs": rows(hidden), "targets": targets})
        expected = ask("probabilities", inputs=inputs, targets=targets)
        assert post(client, "probabilities", body, ARROW).json() == expected


def test_responses_as_npy(client, ask, hidden):
    cases = [
        ("probabilities", {}, (3, TARGETS)),
        ("probabilities", {"log": True}, (3, TARGETS)),
        ("probabilities", {"targets": [1, 2, 3]}, (3,)),
        ("probabilities", {"targets": [[1, 2], [3, 4], [5, 6]]}, (3, 2)),
        ("clusters", {}, (3, 4)),
    ]
    for operation, query, shape in cases:
        query["inputs"] = hidden.tolist()
        response = client.post(URL + operation, json=query, headers={"accept": NPY})
        assert response.headers["content-type"] == NPY
        got = np.load(io.BytesIO(response.content))
        assert (got.dtype, got.shape) == (np.float32, shape)
        field = "log_probabilities" if query.get("log") else "probabilities"
        np.testing.assert_allclose(got, ask(operation, **query)[field], rtol=TOLERANCE)


def test_responses_as_arrow(client, ask, hidden):
    headers = {"accept": ARROW}
    for operation, query in [
        ("probabilities", {}),
        ("probabilities", {"targets": [1, 2, 3]}),
        ("probabilities", {"targets": [[1, 2], [], [5]], "log": True}),
        ("clusters", {}),
        ("top_k", {"k": 3}),
        ("sample", {"num_samples": 2, "seed": 7}),
    ]:
        query["inputs"] = hidden.tolist()
        table = arrow(client.post(URL + operation, json=query, headers=headers))
        expected = ask(operation, **query)
        told = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        assert (told["model"], told["version"]) == ("words", "2")
        if operation == "sample":
            assert told["seed"] == "7"
        columns = expected.get("results") and {
            name: [row[name] for row in expected["results"]] for name in expected["results"][0]
        }
        columns = columns or {n: v for n, v in expected.items() if n.endswith("probabilities")}
        assert table.column_names == list(columns)
        for name, values in columns.items():
            got = table.column(name).to_pylist()
            for one, other in zip(got, values, strict=True):
                assert one == (pytest.approx(other) if name.endswith("ies") else other)


@pytest.fixture
def slicing(repository, monkeypatch):
    """Client of a service that sends every matrix in slices of two rows and in small pieces."""
    monkeypatch.setattr(operations, "_MAX_UNSLICED_VALUES", 0)
    monkeypatch.setattr("hsoftmax.service.inference.encoders.PIECE_VALUES", 4)
    with serving(repository, slice_bytes=2 * 4 * TARGETS) as client:
        yield client


@pytest.mark.parametrize("operation", ["probabilities", "clusters"])
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("kind", list(Format))
def test_slices_give_the_same_response(client, slicing, hidden, operation, log, kind):
    query = {"inputs": np.tile(hidden, (3, 1))[:7].tolist(), "log": log}
    headers = {"accept": kind.value}
    whole = client.post(URL + operation, json=query, headers=headers)
    sliced = slicing.post(URL + operation, json=query, headers=headers)
    assert whole.headers["content-type"] == sliced.headers["content-type"] == kind
    assert sliced.headers["x-hsoftmax-digest"] == whole.headers["x-hsoftmax-digest"]
    assert ("content-length" in sliced.headers) == (kind is Format.NPY)
    field = "log_probabilities" if log else "probabilities"
    np.testing.assert_allclose(values(sliced, field), values(whole, field), rtol=TOLERANCE)


def values(response, field: str):
    kind = response.headers["content-type"]
    if kind == NPY:
        return np.load(io.BytesIO(response.content))
    return arrow(response).column(field).to_pylist() if kind == ARROW else response.json()[field]


def test_an_error_in_the_first_slice_gets_an_error_response(slicing, hidden):
    response = slicing.post(URL + "probabilities", json={"inputs": [[1.0]]})
    expect_error(response, 422, "invalid_query")


FAILS_ON_THE_LAST_ROW = """
from hsoftmax import service
from hsoftmax.service.api import operations
from hsoftmax.runtime.sessions import Session

operations._MAX_UNSLICED_VALUES = 0
whole = Session.run

def run(self, feeds, options=None):
    if "hidden" in feeds and len(feeds["hidden"]) == 1 and feeds["hidden"].any():
        raise RuntimeError("/secret")
    return whole(self, feeds, options)

Session.run = run
service.serve(service.Settings())
"""


def test_an_error_in_a_later_slice_cuts_the_response_off(start):
    """The client must notice that the response is incomplete."""
    server = start(slice_bytes=2 * 4 * TARGETS, run=FAILS_ON_THE_LAST_ROW)
    connection = server.connect()
    query = json.dumps({"inputs": [[0.5] * HIDDEN] * 5})
    connection.request("POST", URL + "probabilities", query)
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead) as cut:
        response.read()
    assert b"secret" not in cut.value.partial
    server.until("internal_error")


def test_a_client_that_stops_reading_is_cut_off():
    async def slices() -> AsyncIterator:
        while True:
            yield np.zeros((1, 3), np.float32)

    async def nobody_reads(message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def here(function):
        return function()

    page = matrix_encoder(Format.JSON, {}, MatrixResult("probabilities", False, 3), 1000)
    sending = send_slices(page, Format.JSON, slices(), nobody_reads, run_in_idle=here, timeout=0.05)
    with pytest.raises(TruncatedError, match="stopped reading"):
        asyncio.run(asyncio.wait_for(sending, 5))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("text/html, *; q=.2, */*; q=.2", Format.JSON),  # Java's default
        ("text/html, application/*;q=0.8", Format.JSON),
        ("application/x-npy", Format.NPY),
        ("Application/X-NPY; q=0.5, application/json;q=0.4", Format.NPY),
        ("application/x-npy;q=0, application/json", Format.JSON),
        (f"{ARROW}, */*;q=0.1", Format.ARROW),
        ("application/x-npy;q=x, */*", Format.JSON),
    ],
)
def test_the_preferred_type_is_used(accept, form):
    assert response_type_of(accept.encode()) is form


@pytest.mark.parametrize(
    ("operation", "query", "accept", "sentence"),
    [
        ("top_k", {}, NPY, "a .npy holds one array"),
        ("probabilities", {"targets": [[1], [1, 2], []]}, NPY, "rows of one length"),
        ("top_k", {}, "text/html", "accept: expected one of application/json"),
    ],
)
def test_what_a_format_cannot_hold_is_not_acceptable(
    client, hidden, operation, query, accept, sentence
):
    query["inputs"] = hidden.tolist()
    response = client.post(URL + operation, json=query, headers={"accept": accept})
    expect_error(response, 406, "not_acceptable", sentence)


def test_without_pyarrow_the_extra_is_named(client, hidden, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    body = client.post(URL + "top_k", content=b"", headers={"content-type": ARROW})
    expect_error(body, 415, "unsupported_media_type", "the extra `arrow`")
    response = client.post(URL + "top_k", json={}, headers={"accept": ARROW})
    expect_error(response, 406, "not_acceptable", "the extra `arrow`")


GOOD = np.zeros((2, HIDDEN), np.float32)
NAN = np.where(np.eye(2, HIDDEN, dtype=bool), np.nan, 0).astype(np.float32)
HUGE = npy(GOOD)[:10] + npy(GOOD)[10:].replace(b"(2, 8)", b"(2, 9" + b"9" * 12 + b")")

BAD_NPY = {
    "no npy": (b"[[1, 2]]", 400, "unreadable_body", "expected a .npy array of numbers"),
    "nothing": (b"", 400, "unreadable_body", ".npy"),
    "cut": (npy(GOOD)[:-1], 400, "unreadable_body", ".npy"),
    "more": (npy(GOOD) + b"x", 400, "unreadable_body", ".npy"),
    "object": (npy(np.array([{}])), 400, "unreadable_body", ".npy"),
    "text": (npy(np.array(["a"])), 400, "unreadable_body", ".npy"),
    "complex": (npy(GOOD.astype(complex)), 400, "unreadable_body", ".npy"),
    "boolean": (npy(GOOD > 0), 400, "unreadable_body", ".npy"),
    "claims": (HUGE, 400, "unreadable_body", ".npy"),
    "version 9": (b"\x93NUMPY\x09" + npy(GOOD)[7:], 400, "unreadable_body", ".npy"),
    "flat": (npy(GOOD[0]), 422, "invalid_query", "rows of 8 numbers, got shape (8,)"),
    "wide": (npy(np.zeros((2, 9))), 422, "invalid_query", "got shape (2, 9)"),
    "empty": (npy(GOOD[:0]), 422, "invalid_query", "got shape (0, 8)"),
    "NaN": (npy(NAN), 422, "invalid_query", "inputs row 0, position 0: expected a finite number"),
    "beyond": (npy(np.full((1, 8), 1e39)), 422, "invalid_query", "within float32, got 1e+39"),
}


@pytest.mark.parametrize("case", BAD_NPY)
def test_a_bad_npy_is_rejected(client, case):
    body, status, code, sentence = BAD_NPY[case]
    response = client.post(URL + "clusters", content=body, headers={"content-type": NPY})
    expect_error(response, status, code, sentence)


BAD_URLS = {
    "k=x": "k: expected an integer, got a string",
    "k=3&k=4": "k: expected once, got it again",
    "inputs=1": "inputs: expected once",
    "targets=3": "unknown field 'targets'",
    "nonesuch=1": "unknown field 'nonesuch'",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_parameter_is_rejected(client, url):
    response = client.post(f"{URL}top_k?{url}", content=npy(GOOD), headers={"content-type": NPY})
    expect_error(response, 422, "invalid_query", BAD_URLS[url])


@pytest.mark.parametrize(
    ("url", "code"),
    [("targets=99", "target_out_of_range"), ("targets=-1", "target_out_of_range"),
     ("targets=nonesuch", "unknown_label"), ("targets=1&targets=2&targets=3", "invalid_query")],
)  # fmt: skip
def test_bad_targets_in_the_url_are_rejected(client, url, code):
    response = client.post(
        f"{URL}probabilities?{url}", content=npy(GOOD[:1]), headers={"content-type": NPY}
    )
    expect_error(response, 422, code)


TWO = rows(GOOD)
BAD_ARROW = {
    "no arrow": (b"ARROW1\0\0", 400, "unreadable_body", "expected an Arrow IPC stream"),
    "nothing": (b"", 400, "unreadable_body", "Arrow"),
    "cut": (stream({"inputs": TWO})[:-60], 400, "unreadable_body", "Arrow"),
    "no inputs": (stream({"x": TWO}), 422, "invalid_query", "expected inputs, targets, got 'x'"),
    "flat": (stream({"inputs": [1.0]}), 422, "invalid_query", "expected lists of numbers"),
    "text": (stream({"inputs": [["a"]]}), 422, "invalid_query", "words takes no text, so send"),
    "null": (stream({"inputs": [[1.0, None]]}), 422, "invalid_query", "got null"),
    "null row": (stream({"inputs": [[1.0], None]}), 422, "invalid_query", "got null"),
    "ragged": (stream({"inputs": [[1.0], []]}), 422, "invalid_query", "row 1: expected 1 numbers"),
    "wide": (stream({"inputs": [[1.0] * 9]}), 422, "invalid_query", "got shape (1, 9)"),
    "float targets": (
        stream({"inputs": TWO, "targets": [1.5, 2.5]}),
        422,
        "invalid_query",
        "targets: expected integers, labels",
    ),
    "null target": (stream({"inputs": TWO, "targets": [1, None]}), 422, "invalid_query", "null"),
}


@pytest.mark.parametrize("case", BAD_ARROW)
def test_a_bad_arrow_stream_is_rejected(client, case):
    body, status, code, sentence = BAD_ARROW[case]
    response = client.post(URL + "probabilities", content=body, headers={"content-type": ARROW})
    expect_error(response, status, code, sentence)


LIST, STRING = pa.list_(pa.float32()), ["word1", "étoile"]
INPUT_TYPES = [
    LIST, pa.large_list(pa.float64()), pa.list_(pa.float32(), HIDDEN), pa.list_view(pa.float32()),
    pa.large_list_view(pa.float16()), pa.list_(pa.decimal128(5, 3)),
]  # fmt: skip
TARGETS_OF_TYPE = [
    pa.array([1, 3], pa.uint8()), pa.array([1.0, 3.0]), pa.array(STRING, pa.string_view()),
    pa.array(STRING, pa.large_string()), pa.array(STRING).dictionary_encode(),
    pa.array([[1], [3, 2]], pa.large_list(pa.int32())), pa.array([[1.0], []]),
    pa.array([STRING, []], pa.large_list(pa.string_view())),
    pa.array([STRING, []], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
]  # fmt: skip


@pytest.mark.parametrize("kind", INPUT_TYPES, ids=str)
def test_numbers_may_have_any_type_of_lists(client, ask, kind):
    inputs = [[0.5, -0.25] * 4, [1.5] * HIDDEN]
    made = decimal.Decimal if pa.types.is_decimal(kind.value_type) else float
    if pa.types.is_float16(kind.value_type):
        made = np.float16
    column = pa.array([[made(number) for number in row] for row in inputs], kind)
    expected = ask("probabilities", inputs=inputs, targets=[1, 3])
    body = stream({"inputs": column, "targets": [1, 3]})
    assert post(client, "probabilities", body, ARROW).json() == expected


@pytest.mark.parametrize("targets", TARGETS_OF_TYPE, ids=lambda one: str(one.type))
def test_targets_may_have_any_type(client, ask, targets):
    plain = [int(t) if isinstance(t, float) else t for t in targets.to_pylist()]
    plain = [[int(v) if isinstance(v, float) else v for v in t] if isinstance(t, list) else t
             for t in plain]  # fmt: skip
    expected = ask("probabilities", inputs=GOOD[:2].tolist(), targets=plain)
    body = stream({"inputs": rows(GOOD[:2]), "targets": targets})
    assert post(client, "probabilities", body, ARROW).json() == expected


def test_batches_with_dictionaries_of_their_own_are_one_body(client, ask):
    sink, labels = io.BytesIO(), ("word1", "word2", "étoile")
    batches = [
        pa.record_batch({"inputs": rows(GOOD[:1]), "targets": pa.array([one]).dictionary_encode()})
        for one in labels
    ]
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    expected = ask("probabilities", inputs=GOOD[[0, 0, 0]].tolist(), targets=list(labels))
    assert post(client, "probabilities", sink.getvalue(), ARROW).json() == expected


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_buffers_may_be_compressed(client, ask, compression):
    inputs = np.tile(np.float32([0.5, -0.5]), (300, HIDDEN // 2))
    targets = pa.array(["étoile"] * 300).dictionary_encode()
    expected = ask("probabilities", inputs=inputs.tolist(), targets=["étoile"] * 300)
    body = stream({"inputs": rows(inputs), "targets": targets}, compression=compression)
    assert len(body) < inputs.nbytes
    assert post(client, "probabilities", body, ARROW).json() == expected


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_buffers_beyond_the_limit_when_decompressed_are_rejected(repository, compression):
    body = stream({"inputs": rows(np.zeros((4000, HIDDEN), np.float32))}, compression=compression)
    with serving(repository, max_body_bytes=100_000) as client:
        url, headers = URL + "probabilities", {"content-type": ARROW}
        response = client.post(url, content=body, headers=headers)
        sentence = "expected at most 100000 bytes when decompressed, got 128"
        expect_error(response, 413, "too_large", sentence)
        # The size is that of the buffer's first bytes, which the decoder does not exceed.
        size = (4000 * HIDDEN * 4).to_bytes(8, "little")
        for claimed in (0, 99_000, -2, 2**63 - 1):
            changed = body.replace(size, claimed.to_bytes(8, "little", signed=True))
            assert changed != body
            response = client.post(url, content=changed, headers=headers)
            expect_error(response, 413 if claimed > 1e6 else 400,
                         "too_large" if claimed > 1e6 else "unreadable_body")  # fmt: skip


def test_targets_twice_are_rejected(client):
    body = stream({"inputs": TWO, "targets": [1, 2]})
    response = client.post(
        URL + "probabilities?targets=1,2", content=body, headers={"content-type": ARROW}
    )
    expect_error(response, 422, "invalid_query", "targets: expected in the body or in the URL")
