"""uvicorn's HTTP, but for what is answered at the door, and what it leaves to chance.

A question whose body comes with its headers is brought to the door before there is a task or an app
for it; if its head is known, before uvicorn has read it. What is no HTTP at all is answered in the
one shape of errors. A connection that is closed while its peer takes nothing would wait for ever to
send what is left, and is cut.
"""

import asyncio
import math
from typing import Any, cast

from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from .callers import KnownCaller, ParsedCaller, Reply
from .door import Door
from .errors import NotHttp
from .exchange import Exchange, hand_on, new_request_id
from .wire import encode

_PATIENCE = 30.0  # seconds in which a peer takes something, while its connection is closed


class Protocol(HttpToolsProtocol):
    """A connection; no app is asked about what cannot be read as a request."""

    _watch: asyncio.TimerHandle | None = None
    _between = True  # whether the parser has begun no request
    _reading = False
    _stopped: ParsedCaller | None = None  # whose headers are there, while data is read
    _at_door = False  # whether somebody is whose request uvicorn has not read
    _later = b""  # what has come meanwhile
    _exchange: Exchange | None = None  # of who is let in
    _ending = False
    _rested = -math.inf  # since when nobody is at the door, on the loop's clock

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
        """Bring to the door who may be answered there."""
        if self._at_door:
            self._later += data
            return self.flow.pause_reading()
        found = self._door.heads.find(data) if self._is_idle() else None
        if found is None:
            return self._read(data)
        known, body = found
        refusal = self._door.refuse(known, body)
        if refusal is not None:
            return self.leave_door(refusal)
        self._at_door = True
        self._door.receive(known.ask, KnownCaller(self, data, body))

    def _is_idle(self) -> bool:
        """Whether a request may begin, and be answered at once."""
        if not self._between or self._door.open or self.flow.write_paused:
            return False
        return self.cycle is None or self.cycle.response_complete

    def leave_door(self, reply: Reply | None) -> None:
        """Whoever was there is answered, or has left."""
        self._at_door = False
        if reply is None:
            return
        self.send(reply, keep_alive=not self._ending)
        self._rested = self.loop.time()
        if self.timeout_keep_alive_task is None or self.flow.read_paused:
            self.on_response_complete()
        else:  # to set the timer anew would take as long as the answer
            self.server_state.total_requests += 1
        if self._later:
            self._go_on()

    def enter(self, data: bytes, exchange: Exchange | None) -> None:
        """Whoever was there is let in; uvicorn reads the request after all."""
        self._at_door, self._exchange = False, exchange
        super().data_received(data)
        if self._ending:
            super().shutdown()
        if self._later:
            self._go_on()

    def _go_on(self) -> None:
        later, self._later = self._later, b""
        if not self.transport.is_closing():
            self.data_received(later)

    def _read(self, data: bytes) -> None:
        """Have uvicorn read, and bring to the door whose headers have come."""
        begins = self._between
        self._reading = True
        super().data_received(data)
        self._reading = False
        caller, self._stopped = self._stopped, None
        if caller is None:
            return
        ask, body = self._door.ask(caller.head), caller.body()
        if ask is None or body is None:  # what comes in parts has its limits in the app
            return caller.let_in(None)
        if begins and self._between:
            self._door.learn(data, ask, body)
        self._door.receive(ask, caller)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._between = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        """Called by uvicorn when headers are there; what may be answered at the door waits."""
        if self._reading and not self._door.open and self._is_plain(cycle):
            self._stopped = ParsedCaller(self, cycle, app)
        else:
            exchange, self._exchange = self._exchange, None
            self.start(cycle, app, exchange)

    def _is_plain(self, cycle: RequestResponseCycle) -> bool:
        """A POST of which nothing is to be said before its answer."""
        silent = cycle.keep_alive and not cycle.waiting_for_100_continue
        return silent and cycle.scope["method"] == "POST" and not self.flow.write_paused

    def start(self, cycle: RequestResponseCycle, app: Any, exchange: Exchange | None) -> None:  # noqa: ANN401
        """Let a request in, with what is known of its exchange."""
        if exchange is not None:
            hand_on(cast(Scope, cycle.scope), exchange)
        super()._start_asgi_task(cycle, app)

    def send(self, reply: Reply, *, keep_alive: bool) -> None:
        """Answer a request for which no app was started."""
        status, rest = reply
        parts = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        if not keep_alive:  # the server has begun to stop
            parts.append(b"connection: close\r\n")
        parts.append(rest)
        self.transport.write(b"".join(parts))
        if not keep_alive:
            self.transport.close()

    def shutdown(self) -> None:
        """The server stops; who is at the door is answered before."""
        self._ending = True
        if not self._at_door:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Called by a timer, which went on while others were answered at the door."""
        left = self._rested + self.timeout_keep_alive - self.loop.time()
        if self._at_door or left > 0:
            wait = self.timeout_keep_alive if self._at_door else left
            handler = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(wait, handler)
        else:
            super().timeout_keep_alive_handler()

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
        self._stopped = None
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
