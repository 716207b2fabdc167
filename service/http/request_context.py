"""One request and its answer, as headers, log and metrics see them."""

import random
import re
from collections.abc import Mapping
from time import perf_counter

import msgspec
from starlette.types import Scope

from hsoftmax.service.repository.loaded_bundle import LoadedBundle

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


class RequestContext(msgspec.Struct):
    """Filled in on the way through the service; seconds, not milliseconds.

    Attributes:
        request_id: the client's, or a new one
        asked: the request's headers, by their names in lower case
        started: when it came, on the clock of `perf_counter`
    """

    request_id: str
    asked: Mapping[bytes, bytes]
    started: float
    model: str = ""
    digest: str = ""
    rows: int = 0
    queued: float = 0.0
    computed: float = 0.0
    answered: float = 0.0  # when the graph had, on the same clock
    status: int = 0
    code: str = "ok"

    def serve(self, served: LoadedBundle) -> None:
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


def begin(scope: Scope) -> RequestContext:
    """A new exchange, which begins now and is the scope's.

    It has the client's request id if that is a safe one, else a new one.
    """
    asked = dict(scope["headers"])
    request_context = RequestContext(_request_id(asked.get(REQUEST_ID)), asked, perf_counter())
    scope[_KEY] = request_context
    return request_context


def current(scope: Scope) -> RequestContext:
    """The exchange that `begin` made."""
    request_context: RequestContext = scope[_KEY]
    return request_context


def _milliseconds(seconds: float) -> bytes:
    return b"%.3f" % (seconds * 1e3) if seconds else b"0.000"


def _request_id(given: bytes | None) -> str:
    if given is not None and _SAFE_ID.fullmatch(given):
        return given.decode()
    return new_request_id()


def new_request_id() -> str:
    """Unlike any other, but no secret: the system's own noise costs a turn at the interpreter."""
    return f"{random.getrandbits(128):032x}"
