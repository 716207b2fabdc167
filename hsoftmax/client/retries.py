"""Decides after a failed try of a request whether to try again, and how long to wait before."""

from dataclasses import dataclass

BUSY_STATUSES = frozenset({429, 503})  # nothing was done: the request may be sent again

_MAX_CONNECTION_TRIES = 3
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.2, 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """The most tries of one request, the first one included."""

    max_tries: int = 5

    def pause_after_answer(
        self, attempt: int, status: int, retry_after: str | None
    ) -> float | None:
        """Returns the seconds until the next try, or None if the answer stands.

        `attempt` counts from 1. The service says in `Retry-After` when it may be able to answer.
        """
        if status not in BUSY_STATUSES or attempt >= self.max_tries:
            return None
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            return min(float(retry_after), _MAX_PAUSE_S)
        return _pause_s(attempt)

    def pause_after_no_answer(self, attempt: int, *, repeatable: bool) -> float | None:
        """Returns the seconds until the next try after the connection failed, or None."""
        if not repeatable or attempt >= min(self.max_tries, _MAX_CONNECTION_TRIES):
            return None
        return _pause_s(attempt)


def _pause_s(attempt: int) -> float:
    """Returns a pause that doubles with each attempt."""
    return float(min(_MIN_PAUSE_S * 2**attempt, _MAX_PAUSE_S))
