"""One request and its answer, as headers, log and metrics see them."""

import random
import re
from collections.abc import Mapping
from time import perf_counter

import msgspec
from starlette.types import Scope

from .order import Order
from .served import Served

REQUEST_ID = b"x-request-id"
DIGEST = b"x-hsoftmax-digest"
QUEUE_TIME = b"x-queue-time-ms"
COMPUTE_TIME = b"x-compute-time-ms"

CLIENT_LEFT = 499  # a status, which only the log and the metrics see
# Asked every few seconds by machines: not worth a line or a trace each.
QUIET = frozenset({"/healthz/live", "/healthz/ready", "/metrics"})

_KEY = "hsoftmax"
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

Header = tuple[bytes, bytes]
Headers = list[Header]


class Exchange(msgspec.Struct):
    """Filled in on the way through the service; seconds, not milliseconds.

    Attributes:
        request_id: the client's, or a new one
        asked: the request's headers, by their names in lower case
        started: when it came, on the clock of `perf_counter`
        order: what it asks, where that has been read before the app was called
    """

    request_id: str
    asked: Mapping[bytes, bytes]
    started: float
    order: Order | None = None
    model: str = ""
    digest: str = ""
    rows: int = 0
    queued: float = 0.0
    computed: float = 0.0
    answered: float = 0.0  # when the graph had, on the same clock
    status: int = 0
    code: str = "ok"

    def serve(self, served: Served) -> None:
        """Take note of which bundle is asked."""
        self.model, self.digest = served.name, served.manifest.digest

    def headers(self) -> Headers:
        """What every answer carries."""
        headers = [
            (REQUEST_ID, self.request_id.encode()),
            (QUEUE_TIME, _milliseconds(self.queued)),
            (COMPUTE_TIME, _milliseconds(self.computed)),
        ]
        if self.digest:
            headers.append((DIGEST, self.digest.encode()))
        return headers


def begin(scope: Scope) -> Exchange:
    """The scope's exchange: what the door has begun goes on.

    It has the client's request id if that is a safe one, else a new one.
    """
    begun: Exchange | None = scope.get(_KEY)
    if begun is not None:
        return begun
    scope[_KEY] = exchange = exchange_of(dict(scope["headers"]))
    return exchange


def exchange_of(asked: Mapping[bytes, bytes]) -> Exchange:
    """A new one, which begins now."""
    return Exchange(_request_id(asked.get(REQUEST_ID)), asked, perf_counter())


def hand_on(scope: Scope, exchange: Exchange) -> None:
    """Let it be the scope's, though it was begun without one."""
    exchange.asked = dict(scope["headers"])
    scope[_KEY] = exchange


def current(scope: Scope) -> Exchange:
    """The exchange that `begin` made."""
    exchange: Exchange = scope[_KEY]
    return exchange


def _milliseconds(seconds: float) -> bytes:
    return b"%.3f" % (seconds * 1e3) if seconds else b"0.000"


def _request_id(given: bytes | None) -> str:
    if given is not None and _SAFE_ID.fullmatch(given):
        return given.decode()
    return new_request_id()


def new_request_id() -> str:
    """Unlike any other, but no secret: the system's own noise costs a turn at the interpreter."""
    return f"{random.getrandbits(128):032x}"
