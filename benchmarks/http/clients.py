"""Keep-alive connections with one request at a time each, and the latencies of their responses.

The clients use little processor time, as they may share a core with the server: one thread with
`epoll`, and responses that are counted and not parsed.
"""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

NO_CONNECTION = "no connection"  # the result of a request when all connections are busy

_LENGTH = b"content-length: "
_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_RESPONSE_TIMEOUT_S = 60.0  # for the last responses
_BUFFER = bytearray(2**17)


@dataclass
class Latencies:
    """Seconds until the response, by its status or by the name of the error."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def count(self, kind: str) -> int:
        return len(self.seconds.get(kind, []))

    def quantile_ms(self, kind: str, at: float) -> float:
        values = sorted(self.seconds.get(kind, [0.0]))
        return values[min(len(values) - 1, int(at * len(values)))] * 1e3


@dataclass
class PeriodicTask:
    """Action that runs at fixed intervals; `late` has the delays of its runs."""

    period: float  # seconds
    action: Callable[[], None]
    late: Latencies = field(default_factory=Latencies)
    due: float = 0.0

    def catch_up(self, now: float) -> float:
        """Run the action as often as it is due; return the time of the next run."""
        while self.due <= now:
            self.late.add("clock", now - self.due)
            self.due += self.period
            self.action()
        return self.due


class Traffic:
    """All connections to a server. It closes `epoll` when its `with` block ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._by_number: dict[int, _Connection] = {}

    def clients(self, count: int, request: bytes) -> "Clients":
        """Open `count` connections that send the same request."""
        clients = Clients(request)
        for _ in range(count):
            one = _Connection(self._port, clients.on_result)
            self._by_number[one.socket.fileno()] = one
            self._epoll.register(one.socket, select.EPOLLIN)
            clients.add(one)
        return clients

    def run(self, seconds: float, *tasks: PeriodicTask) -> None:
        """Receive responses and run tasks for this number of seconds."""
        now = time.perf_counter()
        end = now + seconds
        for task in tasks:
            task.due = now
        while now < end:
            due = min([end, *(task.catch_up(now) for task in tasks)])
            self._receive(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()

    def wait_for(self, clients: "Clients") -> None:
        """Receive the responses that are still pending."""
        end = time.perf_counter() + _RESPONSE_TIMEOUT_S
        while clients.waiting and time.perf_counter() < end:
            self._receive(0.1)

    def _receive(self, timeout: float) -> None:
        for number, _ in self._epoll.poll(timeout):
            one = self._by_number[number]
            if not one.lost:
                one.receive()
            if one.lost:
                self._epoll.unregister(number)
                one.socket.close()

    def close(self, clients: "Clients") -> None:
        for one in clients.all:
            self._epoll.unregister(one.socket)
            one.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()


class Clients:
    """Connections that send the same request. Some wait for a response, the others are idle."""

    def __init__(self, request: bytes) -> None:
        self.latencies = Latencies()
        self.all: list[_Connection] = []
        self.eager = False  # True: a connection sends again after each response
        self._request = request
        self._idle: list[_Connection] = []

    @property
    def waiting(self) -> int:
        return len(self.all) - len(self._idle)

    def add(self, one: "_Connection") -> None:
        self.all.append(one)
        self._idle.append(one)

    def send(self) -> None:
        """Send the request on an idle connection."""
        if self._idle:
            self._idle.pop().send(self._request)
        else:
            self.latencies.add(NO_CONNECTION, 0.0)

    def send_all(self) -> None:
        for _ in range(len(self._idle)):
            self.send()

    def on_result(self, one: "_Connection", kind: str, seconds: float) -> None:
        """Record a result. The connection calls it; a lost connection is not used again."""
        if one.lost and one in self._idle:  # the server closed an idle connection
            self._idle.remove(one)
            self.all.remove(one)
            return
        self.latencies.add(kind, seconds)
        if one.lost:
            self.all.remove(one)
        elif self.eager:
            one.send(self._request)
        else:
            self._idle.append(one)


class _Connection:
    """HTTP/1.1 client that finds the end of a response and ignores the rest."""

    def __init__(self, port: int, on_result: Callable[["_Connection", str, float], None]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lost = False
        self._on_result = on_result

    def send(self, request: bytes) -> None:
        self._sent_at = time.perf_counter()
        self._head = self._tail = b""
        self._missing: int | None = None
        self._began = False
        try:
            self.socket.sendall(request)
        except OSError as error:
            self._lose(error)

    def receive(self) -> None:
        """Receive the bytes that have arrived."""
        try:
            size = self.socket.recv_into(_BUFFER)
        except OSError as error:
            return self._lose(error)
        if not size:
            return self._lose(ConnectionResetError())
        if self._is_last(size):
            self._on_result(self, self._head[9:12].decode(), time.perf_counter() - self._sent_at)

    def _is_last(self, size: int) -> bool:
        body = size if self._began else self._begin(size)
        if not self._began:
            return False
        if self._missing is not None:
            self._missing -= body
            return self._missing <= 0
        self._tail = (self._tail + _BUFFER[max(0, size - len(_LAST_CHUNK)) : size])[-5:]
        return self._tail == _LAST_CHUNK

    def _begin(self, size: int) -> int:
        """Parse the headers once they are complete; return the number of body bytes received."""
        self._head += _BUFFER[:size]
        end = self._head.find(_END)
        if end < 0:
            return 0
        _, found, after = self._head[:end].lower().partition(_LENGTH)
        self._missing = int(after.partition(b"\r\n")[0]) if found else None
        self._began = True
        return len(self._head) - end - len(_END)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        self._on_result(self, type(error).__name__, time.perf_counter() - self._sent_at)
