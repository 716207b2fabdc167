"""POST /v2/models/{name}/infer: JSON and raw tensors in both directions, and the errors."""

import gzip
import json
import zlib

import numpy as np
import pytest

from hsoftmax.service.api.oip.request_body import HEADER_LENGTH
from hsoftmax.service.engine.call import Lane
from hsoftmax.service.engine.scheduler import Scheduler
from tests.service.conftest import HIDDEN, expect_error, serving

from .requests import HEADER, INFER, binary_body, json_input, read_answer

ROW = [0.5] * HIDDEN
TARGETS = np.array([[1, 2], [3, 4], [5, 6]])


def post(client, url=INFER, headers=None, **body):
    return client.post(url, content=json.dumps(body), headers=headers)


@pytest.fixture
def v1(client, hidden):
    query = {"inputs": hidden.tolist(), "targets": TARGETS.tolist()}
    return client.post("/v1/models/words/probabilities", json=query).json()["probabilities"]


def same(got: dict, v1: list) -> bool:
    return np.array_equal(np.float32(got["target_prob"]), np.float32(v1))


def test_json_in_and_out(client, hidden, v1):
    inputs = [json_input("hidden", hidden), json_input("target", TARGETS)]
    response = post(client, inputs=inputs, id="a b")
    assert response.headers["content-type"] == "application/json"
    assert HEADER not in response.headers
    body = response.json()
    assert {key: body[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "words", "model_version": "2", "id": "a b",
    }  # fmt: skip
    assert [(one["name"], one["datatype"], one["shape"]) for one in body["outputs"]] == [
        ("target_log_prob", "FP32", [3, 2]), ("target_prob", "FP64", [3, 2]),
    ]  # fmt: skip
    assert same(read_answer(response), v1)
    assert "id" not in post(client, inputs=inputs).json()


def test_nested_lists_are_rows(client, hidden, v1):
    inputs = [json_input("hidden", hidden), json_input("target", TARGETS)]
    inputs[0]["data"], inputs[1]["data"] = hidden.tolist(), TARGETS.tolist()
    assert same(read_answer(post(client, inputs=inputs)), v1)


@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", [np.int32, np.int64])
def test_raw_in_and_out(client, hidden, v1, dtype, target, binary_output):
    inputs = {"hidden": hidden.astype(dtype), "target": TARGETS.astype(target)}
    body, headers = binary_body(inputs, parameters={"binary_data_output": binary_output})
    response = client.post(INFER, content=body, headers=headers)
    assert (HEADER in response.headers) == binary_output
    kind = "application/octet-stream" if binary_output else "application/json"
    assert response.headers["content-type"] == kind
    assert same(read_answer(response), v1)


def test_raw_and_json_inputs_and_outputs_mix(client, hidden):
    body, headers = binary_body(
        {"hidden": hidden},
        outputs=[
            {"name": "top_k_label", "parameters": {"binary_data": True}},
            {"name": "top_k_prob", "parameters": {"binary_data": False}},
            {"name": "exact"},
        ],
        parameters={"k": 3},
    )
    response = client.post(INFER, content=body, headers=headers)
    head = json.loads(response.content[: int(response.headers[HEADER])])
    assert ["data" in one for one in head["outputs"]] == [False, True, True]
    got = read_answer(response)
    query = {"inputs": hidden.tolist(), "k": 3}
    results = client.post("/v1/models/words/top_k", json=query).json()["results"]
    assert got["top_k_label"] == [label for one in results for label in one["labels"]]
    mixed = [{**json.loads(body[: int(headers[HEADER])])["inputs"][0]},
             json_input("target", ["word1", "word2", "étoile"])]  # fmt: skip
    head = json.dumps({"inputs": mixed}).encode()
    response = client.post(INFER, content=head + hidden.tobytes(), headers={HEADER: str(len(head))})
    assert read_answer(response)["target_prob"].shape == (3,)


def test_no_content_type_matters(client, hidden):
    body = json.dumps({"inputs": [json_input("hidden", hidden)]})
    answers = {
        client.post(INFER, content=body, headers={"content-type": kind}).content
        for kind in ("", "application/octet-stream", "text/plain", "image/png")
    }
    assert len(answers) == 1


def test_a_header_of_the_whole_length_is_json(client, hidden):
    body = json.dumps({"inputs": [json_input("hidden", hidden)]}).encode()
    response = client.post(INFER, content=body, headers={HEADER: str(len(body))})
    assert "top_k_target" in read_answer(response)


def test_with_a_header_of_0_the_body_is_the_rows(client, hidden):
    response = client.post(INFER, content=hidden.tobytes(), headers={HEADER: "0"})
    assert response.headers["content-type"] == "application/octet-stream"
    expected = read_answer(post(client, inputs=[json_input("hidden", hidden)]))
    got = read_answer(response)
    np.testing.assert_array_equal(got["top_k_target"], expected["top_k_target"])
    wrong = client.post(INFER, content=hidden.tobytes()[:-1], headers={HEADER: "0"})
    expect_error(wrong, 400, "unreadable_body", "body: expected rows of 8 FP32 numbers, 32 bytes")


def test_a_version_is_in_the_path(client):
    inputs = [json_input("hidden", np.array([ROW], np.float32))]
    answers = [post(client, f"/v2/models/words/versions/{v}/infer", inputs=inputs) for v in (1, 2)]
    assert [one.json()["model_version"] for one in answers] == ["1", "2"]
    unknown = post(client, "/v2/models/words/versions/9/infer", inputs=inputs)
    expect_error(unknown, 404, "unknown_version", "words: expected version 1 or 2, got '9'")


PACK = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_may_be_compressed(client, hidden, v1, encoding):
    body, headers = binary_body({"hidden": hidden, "target": TARGETS})
    headers["content-encoding"] = encoding
    response = client.post(INFER, content=PACK[encoding](body), headers=headers)
    assert same(read_answer(response), v1)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("encoding", PACK)
def test_a_large_answer_is_compressed_for_a_client_that_asks(repository, hidden, encoding, binary):
    body = json.dumps({"inputs": [json_input("hidden", hidden)],
                       "parameters": {"binary_data_output": binary}})  # fmt: skip
    with serving(repository, compress_above=100) as client:
        headers = {"accept-encoding": encoding}
        with client.stream("POST", INFER, content=body, headers=headers) as response:
            content = b"".join(response.iter_raw())
        assert response.headers["content-encoding"] == encoding
        plain = client.post(INFER, content=body, headers={"accept-encoding": "identity"})
        assert UNPACK[encoding](content) == plain.content
        assert response.headers.get(HEADER) == plain.headers.get(HEADER)


def test_only_json_is_compressed_by_a_clients_default(repository, hidden):
    """Triton's asyncio client accepts more than it reads: its HTTP library says so for it."""
    headers = {"accept-encoding": "gzip, deflate, br, zstd"}
    with serving(repository, compress_above=100) as client:
        for binary, encoding in ((True, None), (False, "gzip")):
            body, length = binary_body(
                {"hidden": hidden}, parameters={"binary_data_output": binary}
            )
            response = client.post(INFER, content=body, headers=headers | length)
            assert response.headers.get("content-encoding") == encoding
        assert "content-encoding" not in client.get("/v2/models/words", headers=headers).headers


def test_wide_outputs_are_bounded(repository, hidden):
    with serving(repository, max_values=30) as client:
        body = {"inputs": [json_input("hidden", hidden)], "outputs": [{"name": "probs"}]}
        expect_error(post(client, **body), 413, "too_large", "at most 30 numbers, got 3 x 11")


def test_the_timeout_and_the_priority_are_read(client, hidden):
    inputs = [json_input("hidden", hidden)]
    assert post(client, inputs=inputs, parameters={"priority": 2, "timeout": 10**6}).is_success
    wrong = post(client, inputs=inputs, parameters={"timeout": "soon"})
    expect_error(wrong, 422, "invalid_query", "parameters.timeout: expected an integer from 0")


RAW = {"name": "hidden", "datatype": "FP32", "shape": [1, HIDDEN],
       "parameters": {"binary_data_size": 32}}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "status", "code", "sentence"),
    [
        ({"data": ROW[1:]}, 400, "unreadable_body", "expected 8 elements of shape [1, 8], got 7"),
        ({"data": None}, 422, "invalid_query", "hidden data: expected a list, got null"),
        ({"data": [*ROW[1:], "a"]}, 422, "invalid_query", "expected a number, got a string"),
        ({"data": [*ROW[1:], True]}, 422, "invalid_query", "expected a number, got a boolean"),
        ({"data": [[*ROW, 1], ROW[1:]], "shape": [2, 8]}, 400, "unreadable_body",
         "hidden: expected nested lists of shape [2, 8]"),
        ({"shape": [1, -8]}, 422, "invalid_query", "hidden: expected a shape without negative"),
        ({"shape": [1.5, 8]}, 422, "invalid_query", "expected an integer, got a number"),
        ({"datatype": "FP16"}, 422, "invalid_query", "hidden: expected FP16 as raw bytes"),
        ({"datatype": "FLOAT"}, 422, "invalid_query", "hidden: expected a datatype of BOOL"),
        ({"datatype": "INT8", "data": [500] * 8}, 422, "invalid_query", "numbers within INT8"),
        ({"name": "x"}, 422, "invalid_query", "inputs: expected hidden, target, row, got 'x'"),
        ({"parameters": {"binary_data_size": 32}}, 400, "unreadable_body",
         "hidden: expected data or binary_data_size, got both"),
        ({"parameters": {"shared_memory_region": "a"}}, 422, "invalid_query", "shared memory"),
    ],
)  # fmt: skip
def test_an_error_in_json_is_one_sentence(client, change, status, code, sentence):
    good = json_input("hidden", np.array([ROW], np.float32))
    expect_error(post(client, inputs=[good | change]), status, code, sentence)


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        (b"", 400, "invalid_json", "body: expected JSON"),
        (b"{", 400, "invalid_json", "body: expected JSON"),
        (b"[]", 422, "invalid_query", "body: expected an object, got a list"),
        (b"{}", 422, "invalid_query", "inputs: expected a value, got none"),
        (b'{"inputs":[{}]}', 422, "invalid_query", "expected a value, got none"),
        (b'{"inputs":[]}', 422, "invalid_query", "expected the rows once, as hidden, got none"),
        (b'{"inputs":[{"name":"hidden","shape":[1,8],"datatype":"FP32","data":[NaN]}]}', 422,
         "invalid_query", "expected finite numbers, got NaN"),
        (b"[" * 100_000, 413, "too_large", "lists"),
        (b'{"inputs":' + b"[" * 3000, 400, "invalid_json", "body: expected JSON"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_one_sentence(client, body, status, code, sentence):
    expect_error(client.post(INFER, content=body), status, code, sentence)


def test_a_deep_member_is_no_fault(client):
    """Python 3.13 reads deeper lists than others, and then the request has no rows."""
    body = b'{"inputs":[],"x":' + b"[" * 1500 + b"]" * 1500 + b"}"
    response = client.post(INFER, content=body)
    assert (response.status_code, response.json()["code"]) in {
        (400, "invalid_json"),
        (422, "invalid_query"),
    }


def framed(inputs: list, raw: bytes) -> tuple[bytes, str]:
    head = json.dumps({"inputs": inputs}).encode()
    return head + raw, str(len(head))


@pytest.mark.parametrize(
    ("inputs", "raw", "sentence"),
    [
        ([RAW], bytes(31), "hidden: expected 32 bytes behind the JSON, got 31"),
        ([RAW], bytes(33), "body: expected 32 bytes behind the JSON, got 33"),
        ([RAW | {"shape": [1, 7]}], bytes(32), "hidden: expected 28 bytes of FP32 [1, 7], got 32"),
        ([RAW | {"parameters": {"binary_data_size": -1}}], b"", "as a number of bytes"),
        ([RAW | {"parameters": {"binary_data_size": True}}], b"\0", "as a number of bytes"),
        ([RAW | {"parameters": {}}], bytes(32), "expected data or binary_data_size, got neither"),
    ],
)
def test_raw_parts_that_do_not_fit_are_one_sentence(client, inputs, raw, sentence):
    body, length = framed(inputs, raw)
    response = client.post(INFER, content=body, headers={HEADER: length})
    expect_error(response, 400, "unreadable_body", sentence)


@pytest.mark.parametrize("length", ["-1", "9999", "x", "1e3", "9" * 5000, "٣", ""])
def test_a_wrong_length_of_the_json_is_one_sentence(client, length):
    body, _ = framed([RAW], bytes(32))
    headers = [(HEADER_LENGTH, length.encode())]
    response = client.post(INFER, content=body, headers=headers)
    expect_error(response, 400, "unreadable_body", "inference-header-content-length: expected 0 to")


def test_without_the_header_a_raw_body_is_not_json(client):
    body, _ = framed([RAW], bytes(32))
    expect_error(client.post(INFER, content=body), 400, "invalid_json", "body: expected JSON")


def test_raw_numbers_that_are_not_finite_are_refused(client):
    body, headers = binary_body({"hidden": np.full((1, HIDDEN), np.nan, np.float32)})
    response = client.post(INFER, content=body, headers=headers)
    expect_error(response, 422, "invalid_query", "expected a finite number within float32, got nan")


def test_integers_may_have_a_point_but_no_fraction(client, hidden):
    """The client that is generated from the specification writes all numbers as floats."""
    target = {"name": "target", "datatype": "INT64", "shape": [3], "data": [1.0, 2, 3.0]}
    inputs = [json_input("hidden", hidden), target]
    expected = [json_input("hidden", hidden), target | {"data": [1, 2, 3]}]
    assert post(client, inputs=inputs).content == post(client, inputs=expected).content
    wrong = post(client, inputs=[json_input("hidden", hidden), target | {"data": [1.5, 2, 3]}])
    expect_error(wrong, 422, "invalid_query", "target data: expected integers, got 1.5")


def test_null_is_absent(client, hidden):
    inputs = [json_input("hidden", hidden) | {"parameters": None}]
    response = post(client, inputs=inputs, outputs=None, id=None, parameters={"k": None})
    assert "top_k_target" in read_answer(response)


def test_a_zero_size_output_is_empty(client, hidden):
    inputs = {"hidden": hidden, "target": np.empty((3, 0), np.int64)}
    body, headers = binary_body(inputs, parameters={"binary_data_output": True})
    response = client.post(INFER, content=body, headers=headers)
    got = read_answer(response)
    assert got["target_prob"].shape == (3, 0)
    assert read_answer(post(client, inputs=[
        json_input("hidden", hidden), json_input("target", inputs["target"]),
    ]))["target_prob"].shape == (3, 0)  # fmt: skip


def test_an_overloaded_service_refuses_before_it_reads_the_data(repository, monkeypatch):
    monkeypatch.setattr(Scheduler, "is_full", lambda self, lane: lane is Lane.FULL)
    wrong = {**json_input("hidden", ROW), "data": ["no number"]}
    with serving(repository) as client:
        for output, *expected in (
            ("log_probs", 429, "overloaded"),
            ("exact", 422, "invalid_query"),
        ):
            body = json.dumps({"inputs": [wrong], "outputs": [{"name": output}]})
            expect_error(client.post(INFER, content=body), *expected)
