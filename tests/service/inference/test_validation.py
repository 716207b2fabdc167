"""Invalid requests get the right status, code and message."""

import json

import pytest

from tests.service.conftest import HIDDEN, TARGETS, expect_error, serving

ROW = [0.5] * HIDDEN
INVALID = "invalid_query"

CASES = {
    "no inputs": ({}, INVALID, "inputs: expected a value, got none"),
    "empty batch": ({"inputs": []}, INVALID, "inputs: expected at least one row, got none"),
    "empty row": ({"inputs": [[]]}, INVALID, "inputs row 0: expected 8 numbers, got 0"),
    "wrong width": ({"inputs": [ROW, ROW, ROW[1:]]}, INVALID, "inputs row 2: expected 8 numbers"),
    "ragged": ({"inputs": [ROW, [*ROW, 1]]}, INVALID, "inputs row 1: expected 8 numbers, got 9"),
    "flat": (
        {"inputs": ROW},
        INVALID,
        "inputs row 0: expected a string or a list, got a number",
    ),
    "nested": ({"inputs": [[ROW]]}, INVALID, "inputs row 0, position 0: expected a number"),
    "no list": ({"inputs": "x"}, INVALID, "inputs: expected an object or a list, got a string"),
    "strings": (
        {"inputs": [["0.5", *ROW[1:]]]},
        INVALID,
        "inputs row 0, position 0: expected a number, got a string",
    ),
    "booleans": (
        {"inputs": [[*ROW[:3], True, *ROW[4:]]]},
        INVALID,
        "inputs row 0, position 3: expected a number or a string, got a boolean",
    ),
    "null": ({"inputs": [[None, *ROW[1:]]]}, INVALID, "expected a number or a string, got null"),
    "NaN": (
        {"inputs": [ROW, [*ROW[:1], float("nan"), *ROW[2:]]]},
        INVALID,
        "inputs row 1, position 1: expected finite numbers, got NaN",
    ),
    "infinity": ({"inputs": [[float("-inf"), *ROW[1:]]]}, INVALID, "expected finite numbers"),
    "beyond float32": (
        {"inputs": [ROW, [*ROW[:7], 1e39]]},
        INVALID,
        "inputs row 1, position 7: expected a number within float32, got 1e+39",
    ),
    "target -1": (
        {"inputs": [ROW], "targets": [-1]},
        "target_out_of_range",
        "targets row 0: expected 0 to 10, got -1",
    ),
    "target N": (
        {"inputs": [ROW] * 3, "targets": [[1, 2], [], [3, TARGETS]]},
        "target_out_of_range",
        "targets row 2: expected 0 to 10, got 11",
    ),
    "huge target": (
        {"inputs": [ROW], "targets": [10**30]},
        "target_out_of_range",
        "targets row 0: expected 0 to 10, got 1000",
    ),
    "unknown label": (
        {"inputs": [ROW], "targets": ["nonesuch"]},
        "unknown_label",
        "targets: no label 'nonesuch' in words",
    ),
    "boolean target": ({"inputs": [ROW], "targets": [True]}, INVALID, "targets row 0: expected"),
    "fractional target": ({"inputs": [ROW], "targets": [[1.5]]}, INVALID, "position 0: expected"),
    "too few targets": (
        {"inputs": [ROW, ROW], "targets": [1]},
        INVALID,
        "targets: expected 2, one for each row, got 1",
    ),
    "no targets at all": ({"inputs": [ROW], "targets": []}, INVALID, "targets: expected 1"),
    "mixed targets": ({"inputs": [ROW, ROW], "targets": [1, [2]]}, INVALID, "got both"),
    "log": ({"inputs": [ROW], "log": "yes"}, INVALID, "log: expected a boolean, got a string"),
    "unknown field": ({"inputs": [ROW], "target": [1]}, INVALID, "unknown field 'target'"),
    "not an object": ([1], INVALID, "body: expected an object, got a list"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_query_is_refused(client, case):
    query, code, sentence = CASES[case]
    answer = client.post("/v1/models/words/probabilities", content=json.dumps(query))
    expect_error(answer, 422, code, sentence)


@pytest.mark.parametrize("k", [0, -1, TARGETS + 1, 10**30])
def test_k_must_be_from_1_to_n(client, k):
    answer = client.post("/v1/models/words/top_k", json={"inputs": [ROW], "k": k})
    expect_error(answer, 422, INVALID, f"k: expected 1 to 11, got {k}")


@pytest.mark.parametrize("operation", ["top_k", "clusters", "sample"])
def test_every_operation_checks_its_inputs(client, operation):
    answer = client.post(f"/v1/models/words/{operation}", json={"inputs": [ROW[1:]]})
    expect_error(answer, 422, INVALID, "inputs row 0: expected 8 numbers, got 7")


@pytest.mark.parametrize(
    ("operation", "query", "sentence"),
    [
        ("top_k", {"max_blocks": -1}, "max_blocks: expected 0 or more, got -1"),
        ("sample", {"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ("sample", {"seed": -1}, "seed: expected 0 to"),
        ("clusters", {"k": 3}, "unknown field 'k': expected inputs, version, log"),
    ],
)
def test_other_fields_are_checked_too(client, operation, query, sentence):
    answer = client.post(f"/v1/models/words/{operation}", json={"inputs": [ROW], **query})
    expect_error(answer, 422, INVALID, sentence)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"inputs", b'{"inputs": [[1,]]}', b"\xff\xfe", b'{"inputs": 1} 2', b"NaN,"]
)
def test_a_body_that_is_not_json_is_malformed(client, body):
    answer = client.post("/v1/models/words/probabilities", content=body)
    expect_error(answer, 400, "invalid_json", "body: expected JSON")


@pytest.mark.parametrize("field", ["inputs", "targets", "anything"])
def test_a_deep_body_is_refused_and_nothing_worse(client, field):
    body = f'{{"{field}": {"[" * 200_000}'.encode()
    answer = client.post("/v1/models/words/probabilities", content=body)
    assert answer.status_code in (400, 413, 422)


def test_a_byte_order_mark_before_json_is_dropped(client):
    body = b'\xef\xbb\xbf{"inputs": [[0,0,0,0,0,0,0,0]], "k": 1}'
    url, json_type = "/v1/models/words/top_k", {"content-type": "application/json"}
    assert client.post(url, content=body, headers=json_type).status_code == 200
    bad = client.post(url, content=body[:-1], headers=json_type)
    expect_error(bad, 400, "invalid_json", "it ends too early")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_json_of_another_encoding_is_refused(client, encoding):
    body = '{"inputs": [[0]]}'.encode(encoding)
    response = client.post("/v1/models/words/top_k", content=body)
    sentence = f"body: expected JSON in UTF-8, got {encoding[:6].upper()}: save it as UTF-8"
    expect_error(response, 400, "invalid_json", sentence)


def test_a_label_where_there_are_none_is_refused(client):
    query = {"inputs": [ROW], "targets": ["word1"]}
    answer = client.post("/v1/models/plain/probabilities", json=query)
    expect_error(answer, 422, "unknown_label", "plain has no labels")


def test_an_unknown_bundle_or_version_is_not_found(client):
    answer = client.post("/v1/models/nonesuch/top_k", json={"inputs": [ROW]})
    expect_error(answer, 404, "unknown_bundle", "'nonesuch'")
    for version in (3, "3", "0", "01", "latest", ""):
        query = {"inputs": [ROW], "version": version}
        answer = client.post("/v1/models/words/top_k", json=query)
        expect_error(answer, 404, "unknown_version", "words: expected version 1 or 2")


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..", ".hidden", "%00", "words%2f1"])
def test_a_name_is_never_a_path(client, name):
    answer = client.post(f"/v1/models/{name}/top_k", json={"inputs": [ROW]})
    assert answer.status_code == 404
    assert answer.json()["code"] in ("unknown_bundle", "not_found")


@pytest.mark.parametrize("kind", ["text/html", "multipart/form-data; boundary=x", "image/png"])
def test_a_content_type_other_than_json_is_refused(client, kind):
    answer = client.post("/v1/models/words/top_k", content=b"{}", headers={"content-type": kind})
    expect_error(answer, 415, "unsupported_media_type", "content-type: expected application/json")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/vnd.api+json", ""]
)
def test_a_content_type_that_may_be_json_is_read(client, kind):
    query = json.dumps({"inputs": [ROW]})
    answer = client.post("/v1/models/words/top_k", content=query, headers={"content-type": kind})
    assert answer.status_code == 200


def chunks(body: bytes):
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


def test_limits_are_kept(repository):
    body = json.dumps({"inputs": [ROW] * 3, "targets": [[1, 2], [3], [4]]}).encode()
    large = body + b" " * 1000
    url = "/v1/models/words/probabilities"
    with serving(
        repository, max_body_bytes=len(body), max_rows=3, max_targets=4, max_values=33
    ) as client:
        assert client.post(url, content=body).status_code == 200
        assert client.post(url, content=chunks(body)).status_code == 200
        expect_error(client.post(url, content=large), 413, "too_large", f"at most {len(body)}")
        expect_error(client.post(url, content=chunks(large)), 413, "too_large", "body: expected")
        rows = client.post(url, json={"inputs": [[1]] * 4})
        expect_error(rows, 413, "too_large", "inputs: expected at most 3 rows, got 4")
        pairs = client.post(url, json={"inputs": [ROW], "targets": [[1, 2, 3, 4, 5]]})
        expect_error(pairs, 413, "too_large", "targets: expected at most 4, got 5")
        assert client.post(url, json={"inputs": [ROW] * 3}).status_code == 200
    with serving(repository, max_values=32) as client:
        top_k = client.post("/v1/models/words/top_k", json={"inputs": [ROW] * 4})
        expect_error(top_k, 413, "too_large", "4 x 10")
        drawn = client.post(
            "/v1/models/words/sample", json={"inputs": [ROW], "num_samples": 10**18}
        )
        expect_error(drawn, 413, "too_large")
