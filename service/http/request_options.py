"""Parses the request headers for timeout and priority."""

from collections.abc import Mapping
from dataclasses import dataclass

from hsoftmax.service.engine import Priority
from hsoftmax.service.errors import InvalidQuery

TIMEOUT = b"x-hsoftmax-timeout-ms"
PRIORITY = b"x-hsoftmax-priority"

_MAX_TIMEOUT_MS = 3_600_000
_PRIORITIES = {priority.value.encode(): priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options that a client sets for one request.

    Attributes:
        timeout: seconds until the request fails; None is the default of the service
        priority: the order in which the engine takes waiting calls
    """

    timeout: float | None = None
    priority: Priority = Priority.INTERACTIVE


_DEFAULT_OPTIONS = RequestOptions()


def parse_request_options(
    headers: Mapping[bytes, bytes], default: RequestOptions = _DEFAULT_OPTIONS
) -> RequestOptions:
    """Parse the options from the request headers; `default` applies where a header is missing.

    Raises:
        InvalidQuery: a header has an invalid value.
    """
    if TIMEOUT not in headers and PRIORITY not in headers:
        return default
    return RequestOptions(
        _timeout(headers[TIMEOUT]) if TIMEOUT in headers else default.timeout,
        _priority(headers[PRIORITY]) if PRIORITY in headers else default.priority,
    )


def _timeout(value: bytes) -> float:
    milliseconds = int(value) if value.isdigit() and len(value) < 10 else 0
    if not 1 <= milliseconds <= _MAX_TIMEOUT_MS:
        raise InvalidQuery(
            f"{TIMEOUT.decode()}: expected 1 to {_MAX_TIMEOUT_MS} milliseconds, "
            f"got {_quoted(value)}"
        )
    return milliseconds / 1e3


def _priority(value: bytes) -> Priority:
    if value not in _PRIORITIES:
        expected = " or ".join(_PRIORITIES.values())
        raise InvalidQuery(f"{PRIORITY.decode()}: expected {expected}, got {_quoted(value)}")
    return _PRIORITIES[value]


def _quoted(value: bytes) -> str:
    return repr(value[:60].decode("latin-1"))
