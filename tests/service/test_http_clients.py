"""Tests of the service as a process with HTTP clients and proxies of other projects.

They need these packages: apt-get install openjdk-17-jdk-headless curl nginx-light haproxy
"""

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import HIDDEN, TARGETS
from .processes import Process

pytestmark = pytest.mark.clients

QUERY = json.dumps({"inputs": [[0.5] * HIDDEN], "targets": [1]})
PROBABILITIES, SCORE = "/v1/models/words/probabilities", "/v1/models/words/score"
ROWS = 2_000
LINES = "".join(
    json.dumps({"id": i, "input": [0.5] * HIDDEN, "target": i % TARGETS}) + "\n"
    for i in range(ROWS)
)
UPGRADING = """
client_body_buffer_size 1m;
proxy_buffering off;
proxy_http_version 1.1;
proxy_set_header Upgrade h2c;
proxy_set_header Connection "upgrade";
"""
JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;

class Client {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int i = 0; i < 3; i++) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("content-type", arguments[2])
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1]))).build();
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.err.println(response.statusCode());
            if (i == 2) System.out.print(response.body());
        }
    }
}
"""


def need(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, f"expected the program {program}, got none: see this module's text"
    return path


@pytest.fixture
def server(start) -> Process:
    return start()


@pytest.fixture(
    params=[(PROBABILITIES, QUERY, "application/json"), (SCORE, LINES, "application/x-ndjson")],
    ids=["query", "stream"],
)
def request_of(request, tmp_path) -> tuple[str, Path, str]:
    """Return path, file with the body, and content type of a request."""
    path, body, content_type = request.param
    file = tmp_path / "body"
    file.write_text(body)
    return path, file, content_type


def check(path: str, response: str) -> None:
    """Assert that every byte of the body was read: the one row, or each of the rows."""
    if path == PROBABILITIES:
        assert len(json.loads(response)["probabilities"]) == 1
    else:
        *records, summary = map(json.loads, response.splitlines())
        assert len(records) == ROWS
        assert summary["summary"]["rows_in"] == summary["summary"]["scored"] == ROWS


def test_java(server, request_of, tmp_path):
    """The default client of Java offers an upgrade to HTTP/2 with its first request."""
    path, file, content_type = request_of
    source = tmp_path / "Client.java"
    source.write_text(JAVA)
    url = f"http://{server.address}{path}"
    done = subprocess.run(
        [need("java"), str(source), url, str(file), content_type],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.split() == ["200"] * 3
    check(path, done.stdout)


@pytest.mark.parametrize("option", ["--http2", "--http1.1", "--http1.0"])
def test_curl(server, request_of, option):
    path, file, content_type = request_of
    command = [need("curl"), "--silent", "--show-error", "--fail", option, "--data-binary",
               f"@{file}", "--header", f"content-type: {content_type}"]  # fmt: skip
    url = f"http://{server.address}{path}"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    check(path, done.stdout)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def proxy(command: list[str], port: int) -> Iterator[None]:
    """Run a proxy that listens on the port."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, command
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def ask(
    port: int, method: str, path: str, body: str | bytes = b"", content_type: str = ""
) -> tuple:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"content-type": content_type})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_nginx_that_passes_an_upgrade_on(server, request_of, tmp_path):
    path, file, content_type = request_of
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ access_log off;"
        f"client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; "
        f"fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{server.address};"
        f"{UPGRADING} }} }} }}"
    )
    command = [need("nginx"), "-p", str(tmp_path), "-c", "nginx.conf", "-g", "daemon off;"]
    with proxy(command, port):
        for _ in range(3):
            status, response = ask(port, "POST", path, file.read_bytes(), content_type)
            assert status == 200, response
            check(path, response)


@pytest.mark.parametrize("check_line", ["", "HEAD /healthz/ready", "OPTIONS /healthz/ready"])
def test_haproxy_that_checks_health(server, tmp_path, check_line):
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
        f"frontend in\n bind 127.0.0.1:{port}\n default_backend out\n"
        f"backend out\n option httpchk {check_line}\n"
        f" server one {server.address} check inter 100ms fall 2 rise 1\n"
    )
    with proxy([need("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg")], port):
        time.sleep(1)  # ten health checks; haproxy drops a server that fails two
        status, response = ask(port, "POST", PROBABILITIES, QUERY, "application/json")
        assert status == 200, response
        check(PROBABILITIES, response)
