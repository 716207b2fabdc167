"""uvicorn's HTTP, but for what is answered at the door, and what it leaves to chance.

A question whose body comes with its headers is read before there is a task or an app for it. What
is no HTTP at all is answered in the one shape of errors. A connection that is closed while its peer
takes nothing would wait for ever to send what is left, and is cut.
"""

import asyncio
from typing import Any, cast

from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from .door import Door, Reply
from .errors import NotHttp
from .exchange import new_request_id
from .wire import encode

_PATIENCE = 30.0  # seconds in which a peer takes something, while its connection is closed


class Protocol(HttpToolsProtocol):
    """A connection; no app is asked about what cannot be read as a request."""

    _watch: asyncio.TimerHandle | None = None
    _caller: "_Caller | None" = None  # whose headers are there
    _reading = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door: Door = config.app.state.door  # type: ignore[union-attr]  # as `create_app` made it

    def data_received(self, data: bytes) -> None:
        """Bring to the door whose headers have come."""
        self._reading = True
        super().data_received(data)
        self._reading = False
        caller, self._caller = self._caller, None
        if caller is not None:
            self._door.receive(caller)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        """Called by uvicorn when headers are there; what may be answered at the door waits."""
        stopped = self._reading and not self._door.open
        if stopped and _is_plain(cycle) and not self.flow.write_paused:
            self._caller = _Caller(self, cycle, app)
        else:
            self.start(cycle, app)

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        """Let a request in."""
        super()._start_asgi_task(cycle, app)

    def send(self, cycle: RequestResponseCycle, reply: Reply) -> None:
        """Answer a request for which no app was started."""
        status, headers, body = reply
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:  # the server has begun to stop
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def pause_writing(self) -> None:
        """More is to be sent than the peer takes."""
        super().pause_writing()
        if self._watch is None:
            self._look_again()

    def _look_again(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._watch = self.loop.call_later(_PATIENCE, self._look, left) if left else None

    def _look(self, before: int) -> None:
        stuck = self.transport.get_write_buffer_size() == before
        if stuck and self.transport.is_closing():
            self.transport.abort()
        else:
            self._look_again()

    def send_400_response(self, msg: str) -> None:
        """Say so, and close the connection, as nobody knows where a next request would begin."""
        self._caller = None
        request_id = new_request_id()
        sentence = "request: expected HTTP/1.1, got something else"
        body = encode({"error": sentence, "code": NotHttp.code, "request_id": request_id})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class _Caller:
    """A request that uvicorn has made, and not started."""

    def __init__(self, connection: Protocol, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        self.scope = cast(Scope, cycle.scope)
        self._connection = connection
        self._cycle = cycle
        self._app = app

    def body(self) -> bytes | None:
        """All of it, or None if more is to come."""
        return None if self._cycle.more_body else bytes(self._cycle.body)

    def settle(self, reply: Reply | None) -> None:
        """Send the reply, unless the client has left; None lets it in."""
        cycle = self._cycle
        if self._connection.transport.is_closing():
            cycle.disconnected = True  # which uvicorn says of the last request alone
        if reply is None:
            return self._connection.start(cycle, self._app)
        if not cycle.disconnected:
            self._connection.send(cycle, reply)
        cycle.body = bytearray()
        cycle.on_response = _nothing  # it was the connection's: nothing must hold itself


def _is_plain(cycle: RequestResponseCycle) -> bool:
    """A POST of which nothing is to be said before its answer."""
    silent = cycle.keep_alive and not cycle.waiting_for_100_continue
    return silent and cycle.scope["method"] == "POST"


def _nothing() -> None:
    """What is done once an answer is complete."""
