"""How long a client waits for its answer, and how urgent it says that is: two headers."""

from collections.abc import Mapping
from dataclasses import dataclass

from hsoftmax.service.engine import Priority
from hsoftmax.service.errors import InvalidQuery

TIMEOUT = b"x-hsoftmax-timeout-ms"
PRIORITY = b"x-hsoftmax-priority"

_LONGEST = 3_600_000  # milliseconds
_PRIORITIES = {priority.value.encode(): priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Seconds (None is the service's own default), and before whom."""

    timeout: float | None = None
    priority: Priority = Priority.INTERACTIVE


_USUAL = RequestOptions()


def parse_request_options(
    headers: Mapping[bytes, bytes], usual: RequestOptions = _USUAL
) -> RequestOptions:
    """What the request's headers ask for, or else what is usual.

    Raises:
        InvalidQuery: they cannot be understood.
    """
    if TIMEOUT not in headers and PRIORITY not in headers:
        return usual
    return RequestOptions(
        _timeout(headers[TIMEOUT]) if TIMEOUT in headers else usual.timeout,
        _priority(headers[PRIORITY]) if PRIORITY in headers else usual.priority,
    )


def _timeout(value: bytes) -> float:
    milliseconds = int(value) if value.isdigit() and len(value) < 10 else 0
    if not 1 <= milliseconds <= _LONGEST:
        raise InvalidQuery(
            f"{TIMEOUT.decode()}: expected 1 to {_LONGEST} milliseconds, got {_quoted(value)}"
        )
    return milliseconds / 1e3


def _priority(value: bytes) -> Priority:
    if value not in _PRIORITIES:
        expected = " or ".join(_PRIORITIES.values())
        raise InvalidQuery(f"{PRIORITY.decode()}: expected {expected}, got {_quoted(value)}")
    return _PRIORITIES[value]


def _quoted(value: bytes) -> str:
    return repr(value[:60].decode("latin-1"))
