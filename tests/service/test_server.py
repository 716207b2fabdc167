"""Tests of the service as a process: it starts, responds, and stops without losing a request."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from hsoftmax.service import Settings, StartError, serve

from .conftest import HIDDEN
from .http.peer import post
from .processes import Process

QUERY = json.dumps({"inputs": [[0.5] * HIDDEN], "targets": [1]})
REQUEST = post(
    QUERY.encode(), b"content-type: application/json", path=b"/v1/models/words/probabilities"
)


def ask(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    connection.request("POST", "/v1/models/words/probabilities", QUERY)
    response = connection.getresponse()
    assert response.status == 200
    assert json.loads(response.read())["version"] == "2"
    return response


def test_sigterm_makes_unready_at_once_serves_on_and_exits_0(start):
    server = start(drain_delay=1.5)
    kept = server.connect()
    assert ask(kept).getheader("connection") is None
    assert server.get("/healthz/ready")[0] == 200
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    status, error = server.get("/healthz/ready")
    assert (status, error["code"]) == (503, "not_ready")
    assert "draining" in error["error"]
    assert server.get("/healthz/live")[0] == 200
    # A client with an open connection gets a response that closes the connection.
    assert ask(kept).getheader("connection") == "close"
    assert ask(server.connect()).getheader("connection") == "close"
    assert server.process.wait(timeout=10) == 0


class BusyClient(threading.Thread):
    """Client that sends requests while the service is ready, over keep-alive connections."""

    def __init__(self, server: Process, ready: threading.Event) -> None:
        super().__init__()
        self._address, self._ready = (server.url.hostname, server.url.port), ready
        self.responses, self.failures = 0, list[object]()

    def run(self) -> None:
        try:
            while self._ready.is_set():
                with socket.create_connection(self._address, timeout=10) as connection:
                    self._ask_over(connection)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.failures.append(error)

    def _ask_over(self, connection: socket.socket) -> None:
        closing = None
        while self._ready.is_set() and closing != "close":
            connection.sendall(REQUEST)  # with one call
            response = http.client.HTTPResponse(connection)
            response.begin()
            closing, body = response.getheader("connection"), json.loads(response.read())
            if response.status != 200 or body["version"] != "2":
                self.failures.append(body)
            self.responses += 1


def test_a_load_that_obeys_readiness_loses_nothing_to_sigterm(start):
    server, ready = start(drain_delay=1.0), threading.Event()
    ready.set()
    clients = [BusyClient(server, ready) for _ in range(8)]
    for client in clients:
        client.start()
    time.sleep(1.0)
    num_before = sum(client.responses for client in clients)
    server.process.send_signal(signal.SIGTERM)
    while server.get("/healthz/ready")[0] == 200:
        time.sleep(0.05)
    ready.clear()
    for client in clients:
        client.join()
    assert [client.failures for client in clients] == [[]] * 8
    assert num_before > 100
    assert sum(client.responses for client in clients) > num_before
    assert server.process.wait(timeout=10) == 0


def test_a_request_in_flight_is_finished(start):
    server = start(drain_timeout=10)
    connection = server.connect()
    connection.putrequest("POST", "/v1/models/words/probabilities")
    connection.putheader("content-length", str(len(QUERY)))
    connection.endheaders(QUERY[:20].encode())
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert server.process.poll() is None
    connection.send(QUERY[20:].encode())
    assert connection.getresponse().status == 200
    assert server.process.wait(timeout=10) == 0


def test_a_request_that_never_ends_is_cut_off_after_the_timeout(start):
    server = start(drain_timeout=1)
    connection = server.connect()
    connection.putrequest("POST", "/v1/models/words/probabilities")
    connection.putheader("content-length", "100")
    connection.endheaders(b"{")
    time.sleep(0.2)
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0
    assert time.monotonic() - started < 5


def test_an_interrupt_skips_the_delay(start):
    server = start(drain_delay=60)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=10) == 0


def test_a_second_sigterm_ends_the_delay(start):
    server = start(drain_delay=60)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0


def test_head_has_no_body_and_is_no_error(start):
    """A server that still expects the body of GET calls a response without it an error."""
    server = start()
    connection = server.connect()
    for path in ("/healthz/ready", "/v1/models", "/metrics", "/nowhere"):
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert response.status == (404 if path == "/nowhere" else 200)
        assert int(response.getheader("content-length")) > 0
        assert response.read() == b""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0
    records = [json.loads(line) for line in server.read_log().splitlines()]
    assert [record for record in records if record["level"] == "error"] == []
    heads = [record for record in records if record["event"] == "request"]
    assert [(r["method"], r["status"]) for r in heads] == [("HEAD", 200), ("HEAD", 404)]


def test_sighup_does_nothing_but_a_line_of_the_log(start):
    server = start()
    server.process.send_signal(signal.SIGHUP)
    assert server.until("sighup_ignored")["level"] == "info"
    ask(server.connect())
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0


HANGS = """
import time
from hsoftmax import service
from hsoftmax.service.repository import repository

scan = repository.scan

def scan_or_hang(path, *arguments):
    if (path / "hangs").exists():
        time.sleep(3600)
    return scan(path, *arguments)

repository.scan = scan_or_hang
service.serve(service.Settings())
"""


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_first_load_that_hangs_does_not_stop_the_exit(start, copy, sig):
    (copy / "hangs").touch()
    server = start(copy, run=HANGS, waits_for="serving")
    while server.process.poll() is None and not listens(server):
        time.sleep(0.05)
    assert server.get("/healthz/ready")[0] == 503
    server.process.send_signal(sig)
    assert server.process.wait(timeout=10) == 0


def listens(server: Process) -> bool:
    return "startup complete" in server.read_log()


def test_a_later_load_that_hangs_does_not_stop_the_exit(start, copy):
    server = start(copy, run=HANGS)
    (copy / "hangs").touch()
    time.sleep(2.5)  # longer than the interval of polling
    ask(server.connect())
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0


def test_a_reload_that_hangs_is_cut_off_after_the_timeout(start, copy):
    server = start(copy, run=HANGS, watch=False, admin_key="root", drain_timeout=1)
    (copy / "hangs").touch()
    server.connect().request(
        "POST", "/v1/models/words/reload", headers={"authorization": "Bearer root"}
    )
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0


def test_all_that_a_process_writes_is_json(start, copy):
    """Output of native code and the error of a broken bundle are JSON too."""
    server = start(copy, run=WRITES)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=10) == 0
    told = [json.loads(line) for line in server.read_log().splitlines()]
    assert [one["message"] for one in told if one["event"] == "stderr"] == ["from C"]
    assert told[-1]["event"] == "stopped"


WRITES = """
import ctypes
from hsoftmax import service
from hsoftmax.service.repository import repository

scan = repository.scan

def scan_and_write(*arguments):
    repository.scan = scan
    ctypes.CDLL(None).dprintf(2, b"from C\\n")
    return scan(*arguments)

repository.scan = scan_and_write
service.serve(service.Settings())
"""


def test_a_body_over_the_limit_gets_a_response_and_keeps_the_connection(start):
    server = start(max_body_bytes=1000)
    connection = server.connect()
    connection.request("POST", "/v1/models/words/top_k", b" " * 2_000_000)
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["code"] == "too_large"
    ask(connection)
    connection.request("POST", "/v1/models/words/top_k", iter([b" " * 900] * 1000))
    response = connection.getresponse()
    assert response.status == 413
    response.read()
    ask(connection)


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nhost\r\n\r\n"])
def test_what_is_no_http_gets_an_error_of_the_one_shape(start, rubbish):
    server = start()
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(rubbish + b"\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        told = json.loads(response.read())
        assert (response.status, told["code"]) == (400, "invalid_http")
        assert told["error"] == "request: expected HTTP/1.1, got something else"
        assert response.headers["x-request-id"] == told["request_id"]
        assert connection.recv(1) == b""  # the server closed the connection
    ask(server.connect())


def test_a_taken_port_is_an_error_at_start(repository):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: Address already"):
            serve(Settings(repository=repository, port=port))


def test_serving_needs_nothing_of_the_exporter():
    foreign = "{'hsoftmax.exporter', 'spox', 'onnx', 'torch', 'hsoftmax.cli'}"
    check = f"import sys, hsoftmax.service; print(sorted({foreign} & sys.modules.keys()))"
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
