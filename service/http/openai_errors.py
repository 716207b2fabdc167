"""The `error` object of OpenAI's API, for the routes that have OpenAI's shape.

OpenAI's clients read the sentence and the code from this object. `responses` writes it for errors
of the routes, and the jobs for the lines of a file that failed.
"""

import re

from hsoftmax.service.errors import InvalidQuery, Overloaded, StorageFull, TooManyJobs

PATHS = ("/v1/files", "/v1/batches")
_PREFIXES = tuple(f"{path}/" for path in PATHS)
ERROR_TYPES = ("invalid_request_error", "rate_limit_error", "server_error")

_INVALID = InvalidQuery.status
_PARAM = re.compile(r"(?P<name>[a-z_]+(?:[.\[][a-z_.\]]+)?)(?:,? (?:row|position) \d+)*: expected ")
_UNKNOWN_FIELD = re.compile(r"unknown field '(?P<name>[^']*)'")
_NO_PARAMS = frozenset({"body", "row", "files", "jobs"})
# OpenAI's clients send a request again after these statuses, unless a header says otherwise.
_CONFLICT = 409


def is_openai_path(path: str) -> bool:
    """True for the routes of OpenAI's API, also for paths below them that do not exist."""
    return path in PATHS or path.startswith(_PREFIXES)


def error_object(message: str, code: str, status: int) -> dict[str, str | None]:
    """Return the object `error`; `param` is the field that a 422 is about."""
    return {
        "message": message,
        "type": _error_type(status),
        "param": _param(message) if status == _INVALID else None,
        "code": code,
    }


def helps_to_retry(code: str, status: int) -> bool:
    """False if the same request fails again until a client or the operator changes the state.

    OpenAI's clients repeat a 409, and a 429 after `retry-after`: a full list of jobs would hold
    up `create` for two minutes.
    """
    return status not in (_CONFLICT, StorageFull.status) and code != TooManyJobs.code


def _error_type(status: int) -> str:
    if status == Overloaded.status:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _param(message: str) -> str | None:
    match = _PARAM.match(message) or _UNKNOWN_FIELD.match(message)
    return None if match is None or match["name"] in _NO_PARAMS else match["name"]
