"""Who stands at the door: a request that uvicorn has made, or one whose head is known."""

from typing import TYPE_CHECKING, Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .exchange import Exchange, Headers
from .heads import Head

if TYPE_CHECKING:
    from .protocol import Protocol as Connection

Reply = tuple[int, bytes]  # status, and all that follows the headers of every answer


def reply(status: int, headers: Headers, body: bytes) -> Reply:
    """An answer that is there whole."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return status, b"".join((*lines, b"\r\n", body))


class Caller(Protocol):
    """A POST, and who waits for what becomes of it: `answer`, `let_in` or, if they fail, `drop`."""

    @property
    def here(self) -> bool:
        """Whether the client has not left."""

    def body(self) -> bytes | None:
        """All of it, or None if more is to come."""

    def answer(self, said: Reply | None) -> None:
        """That was it; None if the client has left."""

    def let_in(self, exchange: Exchange | None) -> None:
        """The app goes on, with what is known of the exchange."""

    def drop(self) -> None:
        """Hang up."""


class ParsedCaller:
    """A request that uvicorn has made, and not started."""

    def __init__(self, connection: "Connection", cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        self._connection = connection
        self._cycle = cycle
        self._app = app
        scope = cycle.scope
        headers = list(scope["headers"])
        self.head = Head(scope["path"], scope["query_string"], headers, dict(headers))

    @property
    def here(self) -> bool:
        return not self._connection.transport.is_closing()

    def body(self) -> bytes | None:
        return None if self._cycle.more_body else bytes(self._cycle.body)

    def answer(self, said: Reply | None) -> None:
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        cycle.body = bytearray()
        cycle.on_response = _nothing  # it was the connection's: nothing must hold itself
        if said is not None and self.here:
            self._connection.send(said, keep_alive=cycle.keep_alive)
            self._connection.on_response_complete()

    def let_in(self, exchange: Exchange | None) -> None:
        self._connection.start(self._cycle, self._app, exchange)

    def drop(self) -> None:
        self._connection.transport.abort()


class KnownCaller:
    """A request of which uvicorn knows nothing, unless it is let in."""

    def __init__(self, connection: "Connection", data: bytes, body: bytes) -> None:
        self._connection = connection
        self._data = data
        self._body = body

    @property
    def here(self) -> bool:
        return not self._connection.transport.is_closing()

    def body(self) -> bytes:
        return self._body

    def answer(self, said: Reply | None) -> None:
        self._connection.leave_door(said if self.here else None)

    def let_in(self, exchange: Exchange | None) -> None:
        self._connection.enter(self._data, exchange)

    def drop(self) -> None:
        self._connection.transport.abort()


def _nothing() -> None:
    """What is done once an answer is complete."""
