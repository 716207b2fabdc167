"""uvicorn's HTTP, but for what it leaves to chance.

What is no HTTP at all is answered in the one shape of errors. A connection that is closed while its
peer takes nothing would wait for ever to send what is left, and is cut.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hsoftmax.service.codecs.json import encode
from hsoftmax.service.errors import NotHttp

from .request_context import new_request_id

_PATIENCE = 30.0  # seconds in which a peer takes something, while its connection is closed


class Protocol(HttpToolsProtocol):
    """A connection; no app is asked about what cannot be read as a request."""

    _watch: asyncio.TimerHandle | None = None

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
