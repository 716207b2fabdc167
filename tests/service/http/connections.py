"""Connections to an app as uvicorn has them, without sockets."""

import asyncio
import io
import json
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from hsoftmax.service.context import context_of
from hsoftmax.service.http.protocol import BoundedProtocol
from tests.service.conftest import HIDDEN
from tests.service.engine.conftest import PATIENCE

URL = "/v1/models/words/probabilities"
ROW = [0.25] * HIDDEN
TINY = {"inputs": [ROW], "targets": [1]}
FULL = {"inputs": [ROW]}
VARIABLE = {"x-request-id", "x-queue-time-ms", "x-compute-time-ms"}


class Wire(asyncio.Transport):
    """The other end of a connection: takes what is written, and says whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")  # as uvloop says
        self.taken += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@dataclass
class OperationResponse:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    def steady(self) -> tuple:
        """What may not differ between two answers to one question."""
        headers = {name: value for name, value in self.headers.items() if name not in VARIABLE}
        if self.headers["content-type"] != "application/json" or "content-encoding" in headers:
            return self.status, headers, self.body
        body = self.json
        headers.pop("content-length", None)
        headers.pop("transfer-encoding", None)
        body.pop("request_id", None)
        return self.status, headers, body


@dataclass
class Line:
    """A connection to an app, as uvicorn has it."""

    app: FastAPI
    state: ServerState = field(default_factory=ServerState)

    def __post_init__(self) -> None:
        config = uvicorn.Config(self.app, http=BoundedProtocol, access_log=False, log_config=None)
        config.load()
        self.wire = Wire()
        self.protocol = BoundedProtocol(config, self.state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.wire)

    @property
    def tasks(self) -> int:
        return len(self.state.tasks)

    def send(self, *requests: bytes) -> None:
        """All in one go."""
        self.protocol.data_received(b"".join(requests))

    def hang_up(self) -> None:
        self.wire.closed = True
        self.protocol.connection_lost(None)

    async def answers(self, number: int = 1) -> list[OperationResponse]:
        """Wait for so many, and take them off the wire."""
        async with asyncio.timeout(PATIENCE):
            while len(found := parsed(self.wire.taken)) < number:
                await asyncio.sleep(0)
        self.wire.taken = b""
        return found

    async def ask(self, request: bytes) -> OperationResponse:
        self.send(request)
        (answer,) = await self.answers()
        return answer


def flushed(app: FastAPI, log: io.BytesIO) -> bytes:
    """All that the app has logged."""
    context_of(app).log._lines.flush()
    return log.getvalue()


def parsed(data: bytes) -> list[OperationResponse]:
    """All answers that are whole."""
    found = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if (length := headers.get("content-length")) is not None:
            body, data = rest[: int(length)], rest[int(length) :]
            if len(body) < int(length):
                break
        else:
            body, ended, data = unchunked(rest)
            if not ended:
                break
        found.append(OperationResponse(int(first.split()[1]), headers, body))
    return found


def unchunked(data: bytes) -> tuple[bytes, bool, bytes]:
    """The body, whether it is all there, and what follows."""
    body = b""
    while b"\r\n" in data:
        size, _, data = data.partition(b"\r\n")
        if not (count := int(size, 16)):
            return body, True, data[2:]
        body, data = body + data[:count], data[count + 2 :]
    return body, False, data


def post(query: dict | bytes, url: str = URL, method: str = "POST", **headers: str) -> bytes:
    body = query if isinstance(query, bytes) else json.dumps(query).encode()
    told = {"host": "a", "content-type": "application/json", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {url} HTTP/1.1\r\n{lines}\r\n".encode() + body
