"""Tests of HEAD, OPTIONS and `Allow`, which load balancers and monitors use."""

import pytest

from tests.service.conftest import expect_error

GETS = [
    "/healthz/live",
    "/healthz/ready",
    "/v1/models",
    "/v1/models/words",
    "/metrics",
    "/",
    "/docs",
]


@pytest.mark.parametrize("url", [*GETS, "/openapi.json", "/v1/files", "/v1/batches"])
def test_head_gets_the_response_of_get_without_the_body(client, url):
    get, head = (client.request(m, url, headers={"accept-encoding": ""}) for m in ("GET", "HEAD"))
    assert (get.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if url != "/metrics":  # it has counted requests in between
        assert head.headers.get("content-length") == get.headers.get("content-length")


@pytest.mark.parametrize("url", GETS)
def test_options_names_every_method(client, url):
    response = client.options(url)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


def test_allow_names_the_methods_of_every_route_of_a_path(client):
    response = client.put("/v1/files")
    expect_error(response, 405, "method_not_allowed", "method: expected GET, HEAD, OPTIONS, POST")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert client.put("/v1/files/file-1").headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert client.options("/v1/files").headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_a_path_without_get_takes_neither(client, method):
    response = client.request(method, "/v1/models/words/probabilities")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert client.request(method, "/nothing").status_code == 404


def test_the_metrics_count_a_head_under_its_route(client):
    client.head("/v1/models/words")
    assert 'hsoftmax_requests_total{code="ok",model="words",route="/v1/models/{name}"' in (
        client.get("/metrics").text
    )
