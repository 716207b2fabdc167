"""A body with more lists or numbers than any query may have is refused without being decoded."""

import json
from time import process_time

import pytest

from tests.service.conftest import HIDDEN, LABELS, expect_error, serving

URL = "/v1/models/words/probabilities"
ROW = [0.5] * HIDDEN


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"inputs":[' + b"[]," * 100_000 + b"[]]}", "lists"),
        (b'{"inputs":[[0]],"targets":[' + b"[]," * 100_000 + b"[]]}", "lists"),
        (b'{"inputs":[[' + b"0," * 1_000_000 + b"0]]}", "numbers"),
        (b'{"inputs":[[' + b"0," * 1_000_000 + b"NaN]]}", "numbers"),
        (b"[" * 100_000, "lists"),
        (b'{"inputs":[],"targets":[' + b'"",' * 100_000, "texts"),
        (b"[" * 100_000 + b'"' + b"\\n" * 20_000, "lists"),
        (b'{"targets":["' + b"[," * 20_000 + b"\\n" * 20_000 + b'"' + b"]" * 9, "escapes"),
    ],
)
def test_too_many_are_refused(client, body, kind):
    expect_error(client.post(URL, content=body), 413, "too_large", kind)


def test_the_largest_query_is_answered(repository):
    with serving(repository, max_rows=50, max_targets=100) as client:
        query = {"inputs": [ROW] * 50, "targets": [[1, 2]] * 50}
        assert client.post(URL, json=query).status_code == 200


def test_brackets_and_commas_inside_text_do_not_count(repository):
    with serving(repository, max_rows=2, max_targets=2) as client:
        label = "[" * 500 + "," * 500 + '\\"'
        query = json.dumps({"inputs": [ROW], "targets": [label]})
        expect_error(client.post(URL, content=query), 422, "unknown_label")
        query = {"inputs": [ROW], "targets": [LABELS[-1]]}
        assert client.post(URL, json=query).status_code == 200


def test_a_text_without_an_end_is_no_json(client):
    expect_error(client.post(URL, content=b'{"inputs":"' + b"[]," * 100_000), 400, "invalid_json")


@pytest.mark.parametrize("part", [b'\\"', b'"\\', b'"\\"', b'\\\\"', b'"', b"\\"])
@pytest.mark.parametrize("start", [b"[" * 10_000, b"[" * 10_000 + b'"', b'"' + b"[" * 10_000])
def test_quotes_and_backslashes_are_counted_in_linear_time(client, part, start):
    """At the square of its size, a body of a megabyte would take half an hour."""
    started = process_time()
    assert client.post(URL, content=start + part * 500_000).status_code in (400, 413, 422)
    assert process_time() - started < 2
