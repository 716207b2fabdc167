"""Tests of the closest known name, which error messages suggest."""

import time

import pytest

from hsoftmax.service.suggestions import MAX_NAME_LENGTH, closest, closest_path, did_you_mean
from tests.service.conftest import HIDDEN, expect_error

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/"
FIELDS = ["inputs", "version", "log", "targets", "clusters"]
ROUTES = ["/v1/models", "/v1/models/{name}", "/v1/models/{name}/top_k", "/v1/files/{id}", "/docs"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("target", "targets"), ("TARGETS", "targets"), ("lgo", "log"), ("xyz", None), ("", None)],
)
def test_the_closest_name_is_found_or_none(name, suggestion):
    assert closest(name, FIELDS) == suggestion
    assert did_you_mean(name, FIELDS) == (f": did you mean {suggestion}?" if suggestion else "")


def test_long_names_are_not_compared():
    known = ["a" * MAX_NAME_LENGTH]
    assert closest("a" * MAX_NAME_LENGTH, known) is not None
    assert closest("a" * (MAX_NAME_LENGTH + 1), known) is None


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("/v1/models/words/topk", "/v1/models/{name}/top_k"),
        ("/v1/model/words/top_k", "/v1/models/{name}/top_k"),
        ("/v1/modles", "/v1/models"),
        ("/v1/file/12", "/v1/files/{id}"),
        ("/doc", "/docs"),
        ("/v1/models/words/nothing", None),
        ("/v1/models//topk", None),
        ("/v2/model/words/top_k", None),  # two wrong segments
        ("/v1/models/words/top_k/x", None),
        ("", None),
        ("/" * 70_000, None),
        (f"/v1/models/{'w' * 70_000}/topk", "/v1/models/{name}/top_k"),
        (f"/v1/models/words/top_k{'x' * 70_000}", None),
    ],
)
def test_the_closest_route_differs_in_one_segment(path, suggestion):
    started = time.perf_counter()
    assert closest_path(path, ROUTES) == suggestion
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("POST", "/v1/models/words/probabilties", "/v1/models/{name}/probabilities"),
        (
            "POST",
            "/v1/models/words/topkk",
            "/v1/models/{name}/top_k",
        ),  # the alias is never suggested
        ("GET", "/v1/models/words/probabilties", "/v1/models/{name}/probabilities"),
        ("POST", "/v1/models/words/scores", "/v1/models/{name}/score"),
        ("POST", "/v1/batch", "/v1/batches"),
        ("GET", "/metric", "/metrics"),
    ],
)
def test_a_wrong_route_gets_the_right_one_suggested(client, method, path, template):
    response = client.request(method, path)
    said = f"there is no such route here: did you mean {template}? See /docs"
    expect_error(response, 404, "not_found", said)
    assert response.json()["error"] == said


def test_a_route_like_no_other_gets_no_suggestion(client):
    response = client.get("/nothing")
    assert response.json()["error"] == "there is no such route here: see /docs"


@pytest.mark.parametrize(
    ("field", "suggestion"),
    [
        ("target", ": did you mean targets?"),
        ("verison", ": did you mean version?"),
        ("nonesuch", ""),
        ("targets" * 10, ""),
    ],
)
def test_an_unknown_field_gets_the_closest_suggested(client, field, suggestion):
    response = client.post(URL + "probabilities", json={**QUERY, field: 1})
    expected = f"unknown field {field[:60]!r}: expected {', '.join(FIELDS)}{suggestion}"
    assert (response.status_code, response.json()["error"]) == (422, expected)


@pytest.mark.parametrize(
    ("task", "suggestion"), [("topk", ": did you mean top_k?"), ("nonesuch", "")]
)
def test_an_unknown_task_of_a_stream_gets_the_closest_suggested(client, task, suggestion):
    response = client.post(f"{URL}score?task={task}", content=b"")
    expect_error(response, 422, "invalid_query", f"got {task!r}{suggestion}")
    assert response.json()["error"].endswith(f"got {task!r}{suggestion}")


def test_an_unknown_parameter_of_a_stream_gets_the_closest_suggested(client):
    response = client.post(f"{URL}score?num_sample=3", content=b"")
    assert response.json()["error"].endswith(": did you mean num_samples?")
