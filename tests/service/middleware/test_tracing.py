"""Tests of tracing: none without an exporter in the environment, else three spans a request."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import context_of
from hsoftmax.service.middleware.tracing import Tracer, TracingMiddleware, is_configured
from tests.service.conftest import HIDDEN

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("environment", "traces"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_only_the_environment_turns_traces_on(environment, traces):
    assert is_configured(environment) is traces


def test_a_request_is_a_span_with_its_waiting_and_computing_below(repository):
    exporter = InMemorySpanExporter()
    traces = Tracer(exporter)
    app = create_app(Settings(repository=repository, threads=1))
    context_of(app).load()
    app.layers._app = TracingMiddleware(app.layers._app, traces)
    with TestClient(app) as client:
        client.get("/metrics")
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        response = client.post(URL, json=QUERY, headers=headers)
        client.post("/v1/models/nonesuch/top_k", json=QUERY)
    traces.close()
    queue, compute, request, failed = exporter.get_finished_spans()
    assert (queue.name, compute.name) == ("queue", "compute")
    assert request.name == "POST /v1/models/{name}/probabilities"
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert {queue.parent.span_id, compute.parent.span_id} == {request.context.span_id}
    assert request.start_time <= queue.start_time <= queue.end_time == compute.start_time
    assert compute.start_time < compute.end_time <= request.end_time
    took = float(response.headers["x-compute-time-ms"])
    assert (compute.end_time - compute.start_time) / 1e6 == pytest.approx(took, abs=0.01)
    assert request.attributes["hsoftmax.request_id"] == response.headers["x-request-id"]
    assert request.attributes["hsoftmax.digest"] == response.headers["x-hsoftmax-digest"]
    assert failed.attributes["error.type"] == "unknown_bundle"
    assert failed.attributes["http.response.status_code"] == 404


class Collector(BaseHTTPRequestHandler):
    """OTLP collector that keeps the requests it gets."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_spans_are_sent_to_the_endpoint_of_the_environment(start, monkeypatch):
    Collector.got = []
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        server = start()
        assert server.get("/v1/models")[0] == 200
        server.process.terminate()
        assert server.process.wait(timeout=20) == 0
        collector.shutdown()
    assert {path for path, _ in Collector.got} == {"/v1/traces"}
    assert b"GET /v1/models" in Collector.got[0][1]


def test_without_traces_the_sdk_is_not_loaded():
    check = (
        "import sys, hsoftmax.service; print([m for m in sys.modules if 'opentelemetry.sdk' in m])"
    )
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
