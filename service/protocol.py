"""uvicorn's HTTP, but what is no HTTP at all is answered in the one shape of errors too."""

import os

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import NotHttp
from .wire import encode


class Protocol(HttpToolsProtocol):
    """A connection; no app is asked about what cannot be read as a request."""

    def send_400_response(self, msg: str) -> None:
        """Say so, and close the connection, as nobody knows where a next request would begin."""
        request_id = os.urandom(16).hex()
        sentence = "request: expected HTTP/1.1, got something else"
        body = encode({"error": sentence, "code": NotHttp.code, "request_id": request_id})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
