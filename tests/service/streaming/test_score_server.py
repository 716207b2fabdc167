"""Streams over sockets: several kinds of clients, memory use, and shutdown of the service."""

import http.client
import json
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.processes import Process
from tests.service.small_disk import fill, small_disk

from .test_score import lines, make_rows, read_lines

URL = "/v1/models/words/score"


class Duplex:
    """A connection that reads the response while it sends the body."""

    def __init__(self, process: Process, query: str = "") -> None:
        self._socket = socket.create_connection((process.url.hostname, process.url.port), 20)
        head = f"POST {URL}{query} HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
        self._socket.sendall(head.encode())
        self._response: http.client.HTTPResponse | None = None

    def send(self, body: bytes) -> None:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(body), body))

    def end(self) -> None:
        self._socket.sendall(b"0\r\n\r\n")

    @property
    def response(self) -> http.client.HTTPResponse:
        if self._response is None:
            self._response = http.client.HTTPResponse(self._socket)
            self._response.begin()
        return self._response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._socket.close()


def private_memory_mb(process: Process) -> float:
    """Private memory of the process in MB."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


def row_chunks(seconds: float = 0, mb: float = 0) -> Iterator[bytes]:
    """Yield NDJSON rows for this number of seconds, or until this number of MB."""
    body = lines(make_rows(500))
    deadline, sent = time.monotonic() + seconds, 0
    while time.monotonic() < deadline or sent < mb * 1e6:
        yield body
        sent += len(body)


def test_answers_come_while_the_body_is_sent(start):
    duplex = Duplex(start())
    rows = make_rows(3)
    for row in rows:
        duplex.send(lines([row]))
        assert json.loads(duplex.response.readline())["id"] == row["id"]
    duplex.end()
    assert json.loads(duplex.response.readline())["summary"]["scored"] == 3
    assert duplex.response.read() == b""
    duplex.close()


def test_a_client_that_sends_all_before_it_reads_is_answered(start):
    process = start()
    connection = process.connect()
    body = lines(make_rows(4000))
    connection.request("POST", f"{URL}?task=sample&num_samples=200", body)  # 40 MB of answers
    response = connection.getresponse()
    records, _, summary = read_lines(response.read())
    assert (len(records), summary["failed"]) == (4000, 0)


# Python takes another folder if that of TMPDIR is full already when it is used first.
IN_TMPDIR = """
import os, tempfile
from hsoftmax import service
tempfile.tempdir = os.environ["TMPDIR"]
service.serve(service.Settings())
"""


def test_a_full_disk_for_temporary_files_is_an_error_record(start, tmp_path, monkeypatch):
    """A client that reads beside is not affected; one that sends all first is told the reason."""
    with small_disk(tmp_path / "temporary", 2**20) as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        process = start(run=IN_TMPDIR, stream_timeout=1)
        fill(folder)
        body = lines(make_rows(4000)) * 20  # more than the buffers of the connection take
        connection = process.connect()
        connection.request("POST", f"{URL}?task=sample&num_samples=50", body)
        with pytest.raises(http.client.IncompleteRead) as cut:
            connection.getresponse().read()
        *records, last = map(json.loads, cut.value.partial.splitlines())
        assert 0 < len(records) < 80_000
        assert (last["code"], last["error"]) == (
            "storage_full",
            "stream: expected a client that reads, or room on the disk for records that wait for "
            "it, got neither",
        )
        duplex = Duplex(process)
        duplex.send(lines(make_rows(10)))
        duplex.end()
        assert read_lines(duplex.response.read())[2]["failed"] == 0
        duplex.close()


def test_a_naive_client_loses_one_record_to_one_bad_line(start, tmp_path):
    """The body is a file with one query a line, as `mlserver infer` reads it."""
    rows: list = make_rows(300)
    rows[123] = b'{"id": 123, "input": '
    (tmp_path / "rows.ndjson").write_bytes(lines(rows))
    process = start()
    with (tmp_path / "rows.ndjson").open("rb") as file:
        request = urllib.request.Request(f"http://{process.address}{URL}", file, method="POST")
        with urllib.request.urlopen(request, timeout=20) as response:
            *records, last = map(json.loads, response)
    assert [record["id"] for record in records] == [*range(123), None, *range(124, 300)]
    assert last["summary"]["failed"] == 1


def test_a_disconnect_leaves_nothing_running(start):
    process = start(max_streams=1)
    duplex = Duplex(process)
    duplex.send(lines(make_rows(2)))
    duplex.response.readline()
    duplex.close()
    event = process.until("stream", 10)
    assert (event["scored"], event["summed_up"]) == (2, False)
    again = process.connect()
    again.request("POST", URL, lines(make_rows(1)))
    assert again.getresponse().status == 200


def test_a_stream_that_runs_is_finished_before_the_service_stops(start):
    process = start()
    duplex = Duplex(process)
    duplex.send(lines(make_rows(2)))
    duplex.response.readline()
    process.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    duplex.send(lines(make_rows(2)))
    duplex.end()
    assert json.loads(duplex.response.read().splitlines()[-1])["summary"]["scored"] == 4
    duplex.close()
    assert process.process.wait(10) == 0


def test_a_failure_reaches_a_client_that_is_still_sending(start):
    connection = start().connect()
    body = lines(make_rows(1000)) + b"no gzip" * 500_000
    headers = {"content-encoding": "gzip"}
    connection.request("POST", URL, body, headers)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (400, "unreadable_body")


def test_a_client_that_does_not_read_is_not_read_further(start):
    process = start(stream_spool_bytes=2**20)
    duplex = Duplex(process, "?task=sample&num_samples=100")
    before = private_memory_mb(process)
    sent = 0

    def send() -> None:
        nonlocal sent
        for body in row_chunks(mb=1000):
            try:
                duplex.send(body)
            except OSError:
                return
            sent += len(body)

    sender = threading.Thread(target=send)
    sender.start()
    stopped = -1
    while sent != stopped:
        stopped = sent
        time.sleep(1)
    assert 0 < sent < 20e6
    assert private_memory_mb(process) - before < 60
    duplex._socket.shutdown(socket.SHUT_RDWR)
    sender.join()
    duplex.close()


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "?task=perplexity", "?task=sample&num_samples=20"])
def test_memory_is_bounded_however_long_the_stream(start, query):
    process = start()
    duplex = Duplex(process, query)

    def send() -> None:
        for body in row_chunks(seconds=20):
            duplex.send(body)
        duplex.end()

    sender = threading.Thread(target=send)
    sender.start()
    duplex.response.readline()
    last, peak, lowest = b"", 0.0, 1e9
    for i, line in enumerate(duplex.response):
        last = line
        if i % 20_000 == 0:
            peak, lowest = (
                max(peak, private_memory_mb(process)),
                min(lowest, private_memory_mb(process)),
            )
    sender.join()
    assert json.loads(last)["summary"]["failed"] == 0
    assert peak - lowest < 60
    duplex.close()


@pytest.mark.slow
def test_a_stream_hardly_delays_interactive_requests(start):
    process = start()
    duplex = Duplex(process)
    query = json.dumps({"inputs": [[0.5] * 8], "targets": [1]})
    connection = process.connect()

    def p95_wait(count: int) -> float:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            connection.request("POST", "/v1/models/words/probabilities", query)
            connection.getresponse().read()
            times.append(time.perf_counter() - started)
        return sorted(times)[int(0.95 * count)]

    alone = p95_wait(300)
    sender = threading.Thread(target=lambda: [duplex.send(body) for body in row_chunks(seconds=6)])
    sender.start()
    duplex.response.readline()
    reader = threading.Thread(target=duplex.response.read, daemon=True)
    reader.start()
    beside = p95_wait(300)
    print(f"95 % wait {alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside a stream")
    assert beside < alone + 0.05
    sender.join()
    duplex.end()
    reader.join()
    duplex.close()
