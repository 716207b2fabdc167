"""A body with more lists or numbers than any query may have is refused without being decoded."""

import json

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
        (b'{"inputs":"' + b"[]," * 100_000, "lists"),  # a string without an end
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
