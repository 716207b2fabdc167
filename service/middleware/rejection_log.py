"""Logs requests that were rejected with 429, one line a second for each route.

Under overload there are a thousand a second: a line for each would hide the other lines, and cost
about a tenth of a rejection.
"""

import asyncio
from collections import Counter

from hsoftmax.service.logging import Log

_INTERVAL_S = 1.0


class RejectionLog:
    """Counts rejections between two lines. Used on the event loop's thread only."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rejected: Counter[str] = Counter()

    def add(self, route: str) -> None:
        """Count a rejection; the first one starts the timer of the next line."""
        if not self._rejected:
            asyncio.get_running_loop().call_later(_INTERVAL_S, self._write)
        self._rejected[route] += 1

    def _write(self) -> None:
        rejected, self._rejected = self._rejected, Counter()
        for route, requests in rejected.items():
            self._log.warning("requests_rejected", route=route, requests=requests)
