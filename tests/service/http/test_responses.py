"""Tests of the headers of every response, and of the JSON shape of every error."""

import io
import json
import re
import time

import pytest
from starlette.testclient import TestClient

from hsoftmax.service import Settings, create_app
from hsoftmax.service.api.dispatch import Dispatcher
from hsoftmax.service.api.openapi import error_codes
from hsoftmax.service.context import context_of
from hsoftmax.service.errors import Internal, ServiceError
from hsoftmax.service.logging import json_log
from tests.service.conftest import HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"


def test_a_response_has_id_digest_and_times(client):
    response = client.post(URL, json=QUERY)
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
    about = client.get("/v1/models/words")
    assert response.headers["x-hsoftmax-digest"] == about.json()["digest"]
    assert about.headers["x-hsoftmax-digest"] == about.json()["digest"]
    assert float(response.headers["x-compute-time-ms"]) > 0
    assert float(response.headers["x-queue-time-ms"]) >= 0


def test_the_digest_is_that_of_the_version_used(client):
    digests = {
        version: client.post(URL, json=QUERY | {"version": version}).headers["x-hsoftmax-digest"]
        for version in ("1", "2")
    }
    assert digests["1"] != digests["2"]
    assert client.get("/v1/models/words?version=1").json()["digest"] == digests["1"]


@pytest.mark.parametrize("url", ["/healthz/live", "/metrics", "/nothing", "/", "/docs"])
def test_every_response_has_an_id_and_times(client, url):
    response = client.get(url)
    assert {"x-request-id", "x-queue-time-ms", "x-compute-time-ms"} <= response.headers.keys()


def test_a_safe_request_id_is_kept(client):
    response = client.post(URL, json={}, headers={"x-request-id": "Trace-1.a:B_2"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "Trace-1.a:B_2"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, 'a"b', "<script>"])
def test_an_unsafe_request_id_is_replaced(client, bad):
    response = client.post(URL, json=QUERY, headers={"x-request-id": bad})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/nothing"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/words/nothing"),
        ("GET", "/v1/models/words/"),
        ("GET", "/docs/../secret"),
        ("GET", "/docs/redoc.standalone.js"),
        ("POST", "/v1/models//top_k"),
    ],
)
def test_what_is_not_there_has_the_error_shape(client, method, url):
    response = client.request(method, url)
    if response.status_code == 405:
        expect_error(response, 405, "method_not_allowed", "method: expected GET")
    else:
        expect_error(response, 404, "not_found", "no such")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_has_the_error_shape(client, method):
    response = client.request(method, URL)
    expect_error(response, 405, "method_not_allowed", "method: expected POST")
    assert response.headers["allow"] == "POST"


def test_a_parameter_error_of_the_framework_has_our_wording(client):
    response = client.get("/v1/batches?limit=many")
    expect_error(response, 422, "invalid_query", "limit: expected a valid integer, got 'many'")


def test_the_error_for_json_that_ends_too_early(client):
    response = client.post(URL, content=b'{"inputs": [[1')
    expect_error(
        response, 400, "invalid_json", "body: expected JSON, which this is not: it ends too"
    )


def test_an_unknown_bundle_has_the_error_shape_in_get_too(client):
    expect_error(client.get("/v1/models/nonesuch"), 404, "unknown_bundle")
    expect_error(client.get("/v1/models/words?version=9"), 404, "unknown_version")


class BrokenRuntime:
    """Session whose run fails in the middle of a graph."""

    def run(self, *_: object) -> list:
        raise RuntimeError("/secret/path: node 7 failed")

    def get_providers(self) -> list[str]:
        return []


def test_a_graph_that_stops_fails_its_own_request_and_tells_nothing(repository):
    with serving(repository, native="off") as client:
        served = context_of(client.app).repository.find("words")
        object.__setattr__(served.sessions["target_log_prob"], "runtime", BrokenRuntime())
        expect_error(client.post(URL, json=QUERY), 500, "inference_failed", "could not be run")
        del QUERY_FULL["targets"]
        assert client.post(URL, json=QUERY_FULL).status_code == 200


QUERY_FULL = dict(QUERY)


def test_a_fault_of_the_service_has_the_error_shape_and_is_logged(repository):
    stream = io.BytesIO()
    app = create_app(Settings(repository=repository), log=json_log("info", stream))

    @app.api.get("/broken")
    async def broken() -> None:
        raise KeyError("/secret/path")

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/broken")
        expect_error(response, 500, "internal", "its log has the request's id")
        (fault,) = events(stream, "internal_error")
    assert fault["request_id"] == response.headers["x-request-id"]
    assert "KeyError" in fault["exception"]


def test_the_framework_gives_the_same_response_as_the_dispatcher(client):
    dispatcher = client.app.layers._app._app
    assert isinstance(dispatcher, Dispatcher)
    endpoints, dispatcher.endpoints = dispatcher.endpoints, {}
    try:
        long = [client.post(URL, json=query) for query in (QUERY, {}, QUERY | {"version": 9})]
    finally:
        dispatcher.endpoints = endpoints
    short = [client.post(URL, json=query) for query in (QUERY, {}, QUERY | {"version": 9})]
    for one, other in zip(long, short, strict=True):
        bodies = [one.json(), other.json()]
        for body in bodies:
            body.pop("request_id", None)
        assert one.status_code == other.status_code
        assert bodies[0] == bodies[1]


def test_every_kind_of_error_has_a_status_and_a_code_of_its_own():
    def below(kind: type) -> list[type]:
        return [kind] + [one for child in kind.__subclasses__() for one in below(child)]

    kinds = below(ServiceError)[1:]
    assert all(400 <= kind.status < 600 for kind in kinds)
    assert len({kind.code for kind in kinds}) == len(kinds) == len(error_codes())
    assert Internal in kinds


def test_a_request_is_one_line_of_the_log(repository):
    stream = io.BytesIO()
    app = create_app(Settings(repository=repository), log=json_log("info", stream))
    context_of(app).load()
    with TestClient(app) as client:
        response = client.post(URL, json=QUERY)
        client.get("/healthz/live")
        (line,) = events(stream, "request")
    assert line.pop("ms") > 0
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": response.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/models/{name}/probabilities",
        "model": "words",
        "version": "2",
        "status": 200,
        "code": "ok",
        "rows": 1,
    }


def events(stream: io.BytesIO, name: str) -> list[dict]:
    """Wait until the log has such events, as it writes a little later; return them."""
    for _ in range(100):
        told = [json.loads(line) for line in stream.getvalue().splitlines()]
        if found := [event for event in told if event["event"] == name]:
            return found
        time.sleep(0.02)
    return []
