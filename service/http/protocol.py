"""HTTP protocol of uvicorn with the limits that uvicorn lacks; `server` passes it to uvicorn.

uvicorn parses every byte that arrives and keeps the requests, so one client can fill the memory.
Here the parser gets a small piece at a time, and no further piece while a request that it has read
completely waits for its response. `bounds` limits the head of a request. An upgrade is ignored, as
RFC 9110 section 7.8 allows. Bytes that are not a request get an error response, after the responses
to earlier requests. The connection of a client that does not read its responses is closed.

docs/decisions/0029 compares this with uvicorn's h11 protocol.
"""

import asyncio

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from hsoftmax.service.errors import ServiceError

from .bounds import MAX_HEAD_BYTES, check_head, check_unfinished_head, not_http
from .responses import connection_error

STALLED_TIMEOUT_S = 120.0  # a client must read some of its response within this time
_PIECE_BYTES = 4 * 1024  # for the parser at once; all pipelined requests in a piece are read
_SMALL_PIECE_BYTES = 512  # for a body of tiny chunks, each of which costs as much as a large one
_LARGE_PIECE_BYTES = 64 * 1024  # within a body of known length
# Parts of bodies, and bytes, after which other connections get their turn. libuv would read 8 MB.
_MAX_BODY_PARTS = 64
_MAX_TURN_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Protocol of one connection, whose client may be hostile. Used on the event loop only."""

    url = b""  # uvicorn sets it when a request begins
    _pending = b""  # received, but not parsed yet
    _held = False  # True while reading is paused because of `_pending`
    _head_bytes = 0  # parsed since the last complete head, part of a body, or request
    _body_parts = 0  # parsed in this turn of the event loop
    _piece_bytes = _PIECE_BYTES
    _in_body = False  # True from the end of a head to the end of its request
    _body_bytes = 0  # not yet parsed of a body of known length
    _error: ServiceError | None = None  # why nothing more is read from this connection
    _unsent = 0  # bytes in the write buffer at the last check

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the check for a client that does not read."""
        super().connection_made(transport)
        self.headers = []  # uvicorn sets it when a request begins
        self._open_cycles: list[RequestResponseCycle] = []
        self._stall_check = self.loop.call_later(STALLED_TIMEOUT_S, self._check_stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """Signal the disconnect to every open request; uvicorn signals it to the newest only."""
        self._stall_check.cancel()
        for cycle in self._open_cycles:
            _disconnect(cycle)
        self._pending = b""
        super().connection_lost(exc)

    def _check_stalled(self) -> None:
        """Close the connection if the client has read nothing since the last check."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent:
            return self.transport.abort()
        self._unsent = unsent
        self._stall_check = self.loop.call_later(STALLED_TIMEOUT_S, self._check_stalled)

    def data_received(self, data: bytes) -> None:
        """Parse as much as may be parsed now, and keep the rest."""
        self._pending += data
        self._parse_pending()

    def _parse_pending(self) -> None:
        if self.transport.is_closing():
            return
        self._stop_keep_alive_timer()
        start = self._body_parts = 0
        while start < len(self._pending) and self._may_parse():
            # A piece ends at the maximum size of a head, so that the error does not depend on
            # TCP segments.
            small = min(self._piece_bytes, MAX_HEAD_BYTES - self._head_bytes)
            end = start + max(small, min(self._body_bytes, _LARGE_PIECE_BYTES))
            start += self._parse(self._pending[start:end])
            if self._body_parts > _MAX_BODY_PARTS:
                self._piece_bytes = _SMALL_PIECE_BYTES
        self._pending = self._pending[start:]
        if self._error is not None:
            self._stop_reading(self._error)
        elif self._pending or (start >= _MAX_TURN_BYTES and not self.flow.read_paused):
            self._hold()
        else:
            self._release()

    def _may_parse(self) -> bool:
        return (
            self._error is None
            and not self._awaits_response()
            and self._body_parts < _MAX_BODY_PARTS
        )

    def _awaits_response(self) -> bool:
        """Return True if the newest request is complete, but its response is not."""
        cycle = self.cycle
        return cycle is not None and not (cycle.more_body or cycle.response_complete)

    def _stop_keep_alive_timer(self) -> None:
        if self._pending and self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _hold(self) -> None:
        """Pause reading until the response is sent or other connections have had their turn.

        It bypasses `flow`, which would resume when an application waits for a disconnect.
        """
        self.flow.resume_reading()
        self.transport.pause_reading()
        self._held = True
        if not self._awaits_response():
            self.loop.call_soon(self._parse_pending)

    def _release(self) -> None:
        if self._held:
            self._held = False
            if not self.flow.read_paused:
                self.transport.resume_reading()

    def _parse(self, piece: bytes) -> int:
        """Pass a piece to the parser. Return the number of bytes that were parsed."""
        self._head_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
            check_unfinished_head(self.url, self.headers, self._head_bytes)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return int(upgrade.args[0])
        except HttpParserError as error:
            raised = error.__context__  # one of the callbacks below raised it
            self._error = raised if isinstance(raised, ServiceError) else not_http()
        except ServiceError as error:
            self._error = error
        if self._error is not None:
            self._error.__traceback__ = None  # it would hold this connection in a reference cycle
        return len(piece)

    def _ignore_upgrade(self) -> None:
        """Replace the parser by a new one that gets the same head without `Upgrade`.

        A parser cannot ignore an upgrade: it stops at the end of the head, where another protocol
        would begin. So the new parser gets the whole body.
        """
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"".join([*head, b"\r\n"]))

    def on_headers_complete(self) -> None:
        """Check a head, then let uvicorn start its request. The parser calls it."""
        check_head(self.parser.get_method(), self.url, self.headers)
        if self.parser.should_upgrade():  # the head is parsed again without the upgrade
            return
        # The parser keeps white space at the end of a value; the application must not get it.
        self.headers[:] = [(name, value.strip(b" \t")) for name, value in self.headers]
        # The parser has checked that it is a number.
        self._body_bytes = int(dict(self.headers).get(b"content-length", 0))
        super().on_headers_complete()
        self._open_cycles.append(self.cycle)
        self._in_body, self._head_bytes, self._piece_bytes = True, 0, _PIECE_BYTES
        self.headers = []  # trailers go here, not to the headers that the application has

    def on_body(self, body: bytes) -> None:
        """Count a part of a body. The parser calls it."""
        self._head_bytes = 0
        self._body_parts += 1
        self._body_bytes = max(0, self._body_bytes - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record the end of a request. The parser calls it."""
        if not self.parser.should_upgrade():
            self._in_body, self._head_bytes = False, 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Parse the bytes that were kept until this response was complete. uvicorn calls it."""
        del self._open_cycles[0]
        super().on_response_complete()
        if self._held:
            self._parse_pending()

    def _stop_reading(self, error: ServiceError) -> None:
        """Send the error once earlier requests have their responses, then close the connection.

        The connection cannot continue, because the start of a next request is unknown.
        """
        self._pending = b""
        broken = self.cycle if self._in_body else None
        if any(cycle is not broken for cycle in self._open_cycles):
            self.transport.pause_reading()
            self._held = True
            return
        if broken is not None:
            _disconnect(broken)  # its application sends nothing after this
        if broken is None or not broken.response_started:
            self.transport.write(self._error_response(error))
        self.transport.close()

    def _error_response(self, error: ServiceError) -> bytes:
        headers, body = connection_error(error)
        lines = [
            b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)
        ]
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Signal to the application of a request that its client has disconnected."""
    cycle.disconnected = True
    cycle.message_event.set()
