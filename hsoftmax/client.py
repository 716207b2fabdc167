"""Just enough of an HTTP client for the demonstration: JSON out, JSON in, errors as sentences."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from hsoftmax import models


@dataclass(frozen=True)
class Client:
    """Asks a running service."""

    base: str  # such as http://127.0.0.1:8000

    def get(self, path: str) -> Any:  # noqa: ANN401  whatever JSON the route answers
        return self._ask(urllib.request.Request(self.base + path))

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        return self._ask(urllib.request.Request(self.base + path, content, headers))

    def wait_until_ready(self, seconds: float) -> None:
        """Return once the service is ready; UserError if that takes longer than this."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.get("/healthz/ready")
                return
            except (OSError, models.UserError) as error:
                if time.monotonic() > deadline:
                    raise models.UserError(f"{self.base}: expected ready, got {error}") from None
                time.sleep(0.05)

    def _ask(self, request: urllib.request.Request) -> Any:  # noqa: ANN401
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise models.UserError(
                    f"{request.full_url}: {error.code} {error.read()!r}"
                ) from None
