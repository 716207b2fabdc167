"""Measures memory and health checks of the service under attack by clients.

The clients send without end or never read. Each attack has twenty connections for some seconds. The
goals are at most 128 MiB above idle and health checks within 100 ms (median of five runs), with and
without API keys.
"""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from . import servers
from .servers import Server

_CONNECTIONS, _RUNS = 20, 5
_GET = b"GET /x HTTP/1.1\r\n\r\n"
_CHUNKED = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
_QUERY = b"POST /v1/models/random/probabilities HTTP/1.1\r\ncontent-type: application/json\r\n"
_BODIES = _QUERY + b"content-length: 3000\r\n\r\n" + b"z" * 3000
_LISTS = _QUERY + b"content-length: 15000002\r\n\r\n[" + b"[]," * 5_000_000 + b"]"

# By name: the first bytes of a connection, the bytes that it then repeats, and True if it reads.
ATTACKS = {
    "pipelined, never read": (b"", _GET * 13_000, False),
    "pipelined, read": (b"", _GET * 13_000, True),
    "bodies, never read": (
        b"",
        (_QUERY + b"content-length: 3000\r\n\r\n" + b"z" * 3000) * 80,
        False,
    ),
    "endless header": (b"GET / HTTP/1.1\r\nx: ", b"a" * 65_536, False),
    "many headers": (b"GET / HTTP/1.1\r\n", b"a:\r\n" * 16_384, False),
    "endless URL": (b"GET /", b"a" * 65_536, False),
    "trailers": (_CHUNKED + b"0\r\n", b"a:\r\n" * 16_384, False),
    "tiny chunks": (_CHUNKED, b"1\r\na\r\n" * 10_000, False),
    "blank lines": (b"", b"\r\n" * 30_000, False),
    "empty lists": (
        b"",
        _QUERY + b"content-length: 15000002\r\n\r\n[" + b"[]," * 5_000_000 + b"]",
        True,
    ),
}


@dataclass
class Attack:
    """Attack of twenty connections on a thread."""

    port: int
    first: bytes
    again: bytes
    reads: bool
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the attack until the context ends."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        connections = [self._connect() for _ in range(_CONNECTIONS)]
        unsent = [self.again] * _CONNECTIONS
        while not self._stop.wait(0.001):
            for i in range(_CONNECTIONS):
                try:
                    unsent[i] = unsent[i][connections[i].send(unsent[i]) :] or self.again
                    if self.reads:
                        connections[i].recv(1 << 20)
                except BlockingIOError:
                    pass
                except OSError:
                    connections[i].close()
                    connections[i], unsent[i] = self._connect(), self.again
        for connection in connections:
            connection.close()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        if not self.reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(OSError):
            connection.sendall(self.first)
        connection.setblocking(False)
        return connection


def measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure every attack, without and with API keys."""
    rows = []
    for keys in (None, "secret"):
        settings = {} if keys is None else {"api_keys": keys}
        with servers.service(repository, **settings) as server:
            _warm_up(server)
            for name, (first, again, reads) in ATTACKS.items():
                found = [
                    _measure_one(server, Attack(server.port, first, again, reads), seconds)
                    for _ in range(_RUNS)
                ]
                rows.append(
                    {
                        "attack": name,
                        "keys": keys is not None,
                        "mib_above_idle": max(memory for memory, _ in found),
                        "health_ms": median(health for _, health in found),
                    }
                )
    return rows


def _measure_one(server: Server, attack: Attack, seconds: float) -> tuple[float, float]:
    """Return the maximum memory above idle in MiB, and the slowest health check in ms."""
    idle, memory, slowest = server.resident_mib(), 0.0, 0.0
    with attack.running():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            slowest = max(slowest, _health_seconds(server.port))
            memory = max(memory, server.resident_mib())
            time.sleep(0.02)
    return memory - idle, slowest * 1e3


def _warm_up(server: Server) -> None:
    for _ in range(200):
        _health_seconds(server.port)


def _health_seconds(port: int) -> float:
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/healthz/live")
    connection.getresponse().read()
    connection.close()
    return time.monotonic() - started
