"""HTTP client of a running service: it sends JSON and returns JSON.

`hsoftmax demo` and `hsoftmax score --url` use it.
"""

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import orjson

from hsoftmax import models

_BUSY_STATUSES = (429, 503)
_MAX_CONNECTION_TRIES = 3
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.2, 60.0
_READY_INTERVAL_S = 0.05


class ClientError(models.UserError):
    """A request that the service refused, or did not answer.

    Attributes:
        sentence, code: of the service's error, empty if there is none
    """

    def __init__(self, message: str, sentence: str = "", code: str = "") -> None:
        super().__init__(message)
        self.sentence = sentence
        self.code = code


@dataclass(frozen=True)
class Client:
    """Sends requests to one service.

    Attributes:
        base: URL of the service, such as http://127.0.0.1:8000
        key: API key, if the service requires one
        max_tries: tries of a request while the service says that it is busy
    """

    base: str
    key: str | None = None
    timeout_s: float = 60.0
    max_tries: int = 1

    def get(self, path: str) -> Any:  # noqa: ANN401  any JSON
        """Sends a GET request. Raises ClientError."""
        return self._send(path, None, "")

    def post(self, path: str, body: dict[str, Any], *, digest: str = "") -> Any:  # noqa: ANN401
        """Sends a POST request. NumPy arrays in the body become JSON lists.

        Raises:
            ClientError: the service refused, did not answer, or answered from a bundle with
                another digest than the given one.
        """
        return self._send(path, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), digest)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Waits until the service is ready. Raises ClientError if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.get("/healthz/ready")
                return
            except ClientError as error:
                if time.monotonic() > deadline:
                    raise ClientError(f"{self.base}: expected ready, got {error}") from None
                time.sleep(_READY_INTERVAL_S)

    def _send(self, path: str, content: bytes | None, digest: str) -> Any:  # noqa: ANN401
        request = urllib.request.Request(self.base + path, content, self._headers())
        for attempt in range(1, self.max_tries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                    _expect_digest(self.base, digest, response.headers.get("x-hsoftmax-digest"))
                    return orjson.loads(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _BUSY_STATUSES or attempt == self.max_tries:
                        raise _refusal(f"{self.base}{path}: {error.code}", error) from None
                    time.sleep(_pause_s(error.headers.get("retry-after"), attempt))
            except (OSError, http.client.HTTPException) as error:
                if attempt >= min(self.max_tries, _MAX_CONNECTION_TRIES):
                    reason = getattr(error, "reason", error)
                    raise ClientError(f"{self.base}: expected an answer, got: {reason}") from None
                time.sleep(_pause_s(None, attempt))
        raise AssertionError("unreachable")

    def _headers(self) -> dict[str, str]:
        authorization = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {"content-type": "application/json", **authorization}


def _pause_s(retry_after: str | None, attempt: int) -> float:
    """Returns the service's `Retry-After`, or else a pause that doubles with each attempt."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), _MAX_PAUSE_S)
    return float(min(_MIN_PAUSE_S * 2**attempt, _MAX_PAUSE_S))


def _refusal(request: str, error: urllib.error.HTTPError) -> ClientError:
    """Returns the error for a refused request, with the service's sentence if there is one."""
    try:
        body = orjson.loads(error.read())
        sentence, code = str(body["error"]), str(body.get("code", ""))
    except (ValueError, KeyError, TypeError):
        return ClientError(request)
    return ClientError(f"{request}: {sentence}", sentence, code)


def _expect_digest(base: str, expected: str, got: str | None) -> None:
    if expected and got is not None and got != expected:
        raise ClientError(f"{base}: expected answers of bundle {expected[:12]}, got {got[:12]}'s")
