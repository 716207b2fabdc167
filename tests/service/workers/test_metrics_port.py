"""A port of its own for the metrics of all workers, without a key."""

import http.client
import json

import pytest

from hsoftmax.service import Settings, StartError, serve
from tests.service.conftest import expect_error, serving
from tests.service.workers.test_supervisor import QUERY, URL, answered, eventually, numbers_in

KEY = {"authorization": "Bearer k"}


def get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_metrics_port_has_the_metrics_of_all_workers_and_nothing_else(start):
    server = start(workers=2, metrics_port=0, api_keys="k", waits_for="serving")
    address = server.metrics_address
    server.until("loaded")
    server.until("loaded")
    for _ in range(6):
        assert server.call("POST", URL, QUERY, KEY)[0] == 200

    def all_counted() -> bool:
        status, page = get(address, "/metrics")
        assert status == 200
        return answered(numbers_in(page)) == 6

    eventually(all_counted, 10)
    for path in ("/v1/models", "/healthz/live", "/"):
        status, body = get(address, path)
        assert (status, json.loads(body)["code"]) == (404, "not_found")


def test_the_other_port_has_no_metrics_then(repository):
    with serving(repository, metrics_port=9) as client:
        expect_error(client.get("/metrics"), 404, "not_found")
        assert "/metrics" not in client.get("/openapi.json").json()["paths"]


def test_the_metrics_port_is_another_one(repository):
    with pytest.raises(StartError, match="metrics_port: expected a port of its own"):
        serve(Settings(repository=repository, port=8123, metrics_port=8123))
