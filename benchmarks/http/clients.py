"""Keep-alive connections that ask one question each at a time, and what was seen of the answers.

Cheap, so that what is measured is the server's time and not the client's, which may have the other
half of the same core: one thread, `epoll`, and answers that are counted and not parsed.
"""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

LEFT_OUT = "no connection"  # what becomes of a request for which there is none

_LENGTH = b"content-length: "
_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_PATIENCE = 60.0  # seconds for the last answers
_BUFFER = bytearray(2**17)


@dataclass
class Seen:
    """Seconds that answers took, by what they were."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def count(self, kind: str) -> int:
        return len(self.seconds.get(kind, []))

    def quantile_ms(self, kind: str, at: float) -> float:
        values = sorted(self.seconds.get(kind, [0.0]))
        return values[min(len(values) - 1, int(at * len(values)))] * 1e3


@dataclass
class Every:
    """Something that is done by the clock; `late` is by how much the clock was behind."""

    period: float  # seconds
    action: Callable[[], None]
    late: Seen = field(default_factory=Seen)
    due: float = 0.0

    def catch_up(self, now: float) -> float:
        """Do what is due; when the next time is."""
        while self.due <= now:
            self.late.add("clock", now - self.due)
            self.due += self.period
            self.action()
        return self.due


class Traffic:
    """All connections to a server; closed when it is left."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._by_number: dict[int, _Connection] = {}

    def clients(self, count: int, request: bytes) -> "Clients":
        """So many connections that ask the same."""
        clients = Clients(request)
        for _ in range(count):
            one = _Connection(self._port, clients.answered)
            self._by_number[one.socket.fileno()] = one
            self._epoll.register(one.socket, select.EPOLLIN)
            clients.add(one)
        return clients

    def run(self, seconds: float, *tasks: Every) -> None:
        """Let answers come, and tasks be done, for so long."""
        now = time.perf_counter()
        end = now + seconds
        for task in tasks:
            task.due = now
        while now < end:
            due = min([end, *(task.catch_up(now) for task in tasks)])
            self._receive(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()

    def wait_for(self, clients: "Clients") -> None:
        """Let the answers come that are still under way."""
        end = time.perf_counter() + _PATIENCE
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
    """Connections with one question, of which some wait for an answer."""

    def __init__(self, request: bytes) -> None:
        self.seen = Seen()
        self.all: list[_Connection] = []
        self.eager = False  # who is answered asks again
        self._request = request
        self._idle: list[_Connection] = []

    @property
    def waiting(self) -> int:
        return len(self.all) - len(self._idle)

    def add(self, one: "_Connection") -> None:
        self.all.append(one)
        self._idle.append(one)

    def ask(self) -> None:
        """Let one ask that is idle."""
        if self._idle:
            self._idle.pop().ask(self._request)
        else:
            self.seen.add(LEFT_OUT, 0.0)

    def ask_all(self) -> None:
        for _ in range(len(self._idle)):
            self.ask()

    def answered(self, one: "_Connection", kind: str, seconds: float) -> None:
        """Called by the connection; of one that is lost, no more comes."""
        if one.lost and one in self._idle:  # closed by the server, as nothing was asked for long
            self._idle.remove(one)
            self.all.remove(one)
            return
        self.seen.add(kind, seconds)
        if one.lost:
            self.all.remove(one)
        elif self.eager:
            one.ask(self._request)
        else:
            self._idle.append(one)


class _Connection:
    """HTTP/1.1 as far as it takes to see where an answer ends."""

    def __init__(self, port: int, answered: Callable[["_Connection", str, float], None]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lost = False
        self._answered = answered

    def ask(self, request: bytes) -> None:
        self._asked = time.perf_counter()
        self._head = self._tail = b""
        self._missing: int | None = None
        self._began = False
        try:
            self.socket.sendall(request)
        except OSError as error:
            self._lose(error)

    def receive(self) -> None:
        """Take what has come."""
        try:
            size = self.socket.recv_into(_BUFFER)
        except OSError as error:
            return self._lose(error)
        if not size:
            return self._lose(ConnectionResetError())
        if self._is_last(size):
            self._answered(self, self._head[9:12].decode(), time.perf_counter() - self._asked)

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
        """How much of what came is body, once all headers are there."""
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
        self._answered(self, type(error).__name__, time.perf_counter() - self._asked)
