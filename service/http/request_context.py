"""Per-request context: id, headers, timings and status.

`RequestLogMiddleware` creates it for each request. Endpoints, log, metrics and traces use it.
"""

import random
import re
from collections.abc import Mapping
from time import perf_counter

import msgspec
from starlette.types import Scope

from hsoftmax.service.access.api_key import ApiKey
from hsoftmax.service.access.rate_limits import Quota
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

REQUEST_ID = b"x-request-id"
DIGEST = b"x-hsoftmax-digest"
VERSION = b"x-hsoftmax-version"
STICKY_KEY = b"x-hsoftmax-sticky-key"
QUEUE_TIME = b"x-queue-time-ms"
COMPUTE_TIME = b"x-compute-time-ms"

CLIENT_LEFT = 499  # status in the log and the metrics if the client disconnects; never sent
# Load balancers and monitors request these every few seconds: logged at debug, and not traced.
PROBE_PATHS = frozenset(
    {
        "/health",
        "/healthz/live",
        "/healthz/ready",
        "/metrics",
        "/ping",
        "/v2/health/live",
        "/v2/health/ready",
    }
)

_KEY = "hsoftmax"
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

Header = tuple[bytes, bytes]
Headers = list[Header]


class RequestContext(msgspec.Struct):
    """State of one request and its response. Each layer of the service fills in its part.

    Attributes:
        request_id: the client's id, or a new one
        headers: the headers of the request; names are lower case
        started: `perf_counter()` value when the request arrived
        key: the API key of the request; None if the service has no keys
        quota: the rate limits of the request; None if nothing limits it
        admin_model: name of the bundle that an admin call is to change, as the client wrote it;
            None if the request is no admin call
        model: name of the bundle; empty if none was found
        version: version of the bundle
        digest: digest of the bundle
        rows: number of input rows
        queued: seconds that the graph call waited in the queue
        computed: seconds that the graph call ran
        encoder_queued, encoder_computed: the same of the encoder's calls, if there were some
        computed_at: `perf_counter()` value when the graph call finished; 0 if there was none
        status: HTTP status of the response; 0 until the response starts
        code: `code` of the error, else "ok"
    """

    request_id: str
    headers: Mapping[bytes, bytes]
    started: float
    key: ApiKey | None = None
    quota: Quota | None = None
    admin_model: str | None = None
    model: str = ""
    version: str = ""
    digest: str = ""
    rows: int = 0
    queued: float = 0.0
    computed: float = 0.0
    encoder_queued: float = 0.0
    encoder_computed: float = 0.0
    computed_at: float = 0.0
    status: int = 0
    code: str = "ok"

    @property
    def key_name(self) -> str | None:
        """Return the name of the request's API key; None if the service has no keys."""
        return None if self.key is None else self.key.name

    def allows_model(self, name: str) -> bool:
        """Return True if the request may see the bundle of this name."""
        return self.key is None or self.key.allows_model(name)

    def expect_model(self, name: str) -> None:
        """Raise Forbidden if the key of the request does not open the bundle of this name."""
        if self.key is not None:
            self.key.expect_model(name)

    def set_model(self, bundle: LoadedBundle) -> None:
        """Record the bundle that the request addresses. Raises Forbidden if its key excludes it."""
        self.expect_model(bundle.name)
        self.model, self.version = bundle.name, bundle.version
        self.digest = bundle.manifest.digest

    def expect_rows(self) -> None:
        """Raise RateLimited if no more rows may be asked now."""
        if self.quota is not None:
            self.quota.expect_rows()

    def set_rows(self, rows: int) -> None:
        """Record the number of input rows, and take them from the quota."""
        self.rows = rows
        if self.quota is not None:
            self.quota.take_rows(rows)

    @property
    def sticky_key(self) -> bytes:
        """The client's key, which chooses its version: of the header, its API key, or the id."""
        if key := self.headers.get(STICKY_KEY):
            return key
        _, _, api_key = self.headers.get(b"authorization", b"").partition(b" ")
        return api_key.strip() or self.request_id.encode()

    def response_headers(self) -> Headers:
        """Return the headers of every response: id, timings, bundle and rate limits."""
        headers = [
            (REQUEST_ID, self.request_id.encode()),
            (QUEUE_TIME, _milliseconds(self.queued + self.encoder_queued)),
            (COMPUTE_TIME, _milliseconds(self.computed + self.encoder_computed)),
        ]
        if self.digest:
            headers.append((DIGEST, self.digest.encode()))
        if self.version:
            headers.append((VERSION, self.version.encode()))
        if self.quota is not None:
            headers += self.quota.headers()
        return headers


def create_request_context(scope: Scope) -> RequestContext:
    """Create the context of a request that arrives now, and store it in the scope.

    It takes the client's request id if that has only safe characters, else a new one.
    """
    request_context = new_request_context(dict(scope["headers"]))
    scope[_KEY] = request_context
    return request_context


def new_request_context(headers: Mapping[bytes, bytes]) -> RequestContext:
    """Create the context of a request with these headers that arrives now."""
    return RequestContext(_request_id(headers.get(REQUEST_ID)), headers, perf_counter())


def request_context_of(scope: Scope) -> RequestContext:
    """Return the context that `create_request_context` stored in the scope."""
    request_context: RequestContext = scope[_KEY]
    return request_context


def _milliseconds(seconds: float) -> bytes:
    return b"%.3f" % (seconds * 1e3) if seconds else b"0.000"


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _SAFE_ID.fullmatch(sent):
        return sent.decode()
    return new_request_id()


def new_request_id() -> str:
    """Return a random id. It is unique but no secret.

    It does not come from `os.urandom`, which releases the GIL and then has to wait for it.
    """
    return f"{random.getrandbits(128):032x}"
