"""The rate limits of the service and of API keys, and the quota that each request has of them."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Protocol

from hsoftmax.service.errors import RateLimited
from hsoftmax.service.settings import Settings

from .api_key import ApiKey
from .rate_limit import RateLimit, Unit

Header = tuple[bytes, bytes]
FullAt = dict[str, float]  # the state of each bucket that is not full, by its name


class Buckets(Protocol):
    """The states of all buckets: those of one process, or those that workers share."""

    def changing(self, now: float) -> AbstractContextManager[FullAt]:
        """Yield the states and keep their changes; no one else changes them meanwhile."""
        ...


class LocalBuckets:
    """The buckets of a service that is one process."""

    def __init__(self) -> None:
        self._full_at: FullAt = {}

    @contextmanager
    def changing(self, now: float) -> Iterator[FullAt]:
        """Yield the states. The event loop's thread alone calls it, so it needs no lock."""
        self._full_at = not_full(self._full_at, now)
        yield self._full_at


def not_full(full_at: FullAt, now: float) -> FullAt:
    """Return the states without those of buckets that are full."""
    return {bucket: time for bucket, time in full_at.items() if time > now}


class RateLimits:
    """The limits of the settings and of API keys.

    Attributes:
        clock: seconds of a clock that all workers share
    """

    def __init__(
        self, settings: Settings, buckets: Buckets, clock: Callable[[], float] = monotonic
    ) -> None:
        self.clock = clock
        self._buckets = buckets
        self._of_service = _limits(
            "", settings.max_requests_per_second, settings.max_rows_per_second
        )

    @property
    def limits_all(self) -> bool:
        """True if the service as a whole has a limit."""
        return bool(self._of_service)

    def quota(self, key: ApiKey | None) -> "Quota | None":
        """Return the quota of a request with this key, or None if nothing limits it."""
        limits = self._of_service
        if key is not None:
            limits += _limits(key.name, key.requests_per_second, key.rows_per_second)
        return Quota(limits, self._buckets, self.clock) if limits else None


def _limits(key: str, requests: float | None, rows: float | None) -> tuple[RateLimit, ...]:
    rates: tuple[tuple[Unit, float | None], ...] = (("requests", requests), ("rows", rows))
    return tuple(RateLimit(unit, rate, key) for unit, rate in rates if rate is not None)


class Quota:
    """The limits of one request, and their state when the request last used them."""

    __slots__ = ("_buckets", "_clock", "_limits", "_remaining")

    def __init__(
        self, limits: tuple[RateLimit, ...], buckets: Buckets, clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._buckets = buckets
        self._clock = clock
        self._remaining: dict[RateLimit, str] = {}

    def take_request(self) -> None:
        """Take a request from each limit on requests, or from none.

        Raises:
            RateLimited: a limit is reached.
        """
        self._take("requests", 1, must_have=True)

    def expect_rows(self) -> None:
        """Raise RateLimited if the rows of earlier requests have reached a limit on rows."""
        self._take("rows", 0, must_have=True)

    def take_rows(self, rows: int) -> None:
        """Take so many rows from each limit on rows, also more than there are.

        A request may have more rows than a second brings. Later requests wait for them.
        """
        self._take("rows", rows, must_have=False)

    def seconds_until_row(self) -> float:
        """Return the seconds until every limit on rows has a row."""
        now = self._clock()
        with self._buckets.changing(now) as full_at:
            return max(
                (
                    one.seconds_until_token(full_at.get(one.bucket, now), now)
                    for one in self._limits
                    if one.unit == "rows"
                ),
                default=0.0,
            )

    def headers(self) -> list[Header]:
        """Return `RateLimit-Policy` and, of the limits that were used, `RateLimit`."""
        policy = ", ".join(one.policy() for one in self._limits)
        headers = [(b"ratelimit-policy", policy.encode())]
        if self._remaining:
            headers.append((b"ratelimit", ", ".join(self._remaining.values()).encode()))
        return headers

    def _take(self, unit: Unit, tokens: int, *, must_have: bool) -> None:
        limits = [one for one in self._limits if one.unit == unit]
        if not limits:
            return
        now = self._clock()
        with self._buckets.changing(now) as full_at:
            before = {one: full_at.get(one.bucket, now) for one in limits}
            waits = {one: one.seconds_until_token(before[one], now) for one in limits}
            slowest = max(limits, key=waits.__getitem__)
            refused = must_have and waits[slowest] > 0
            for one in limits:
                after = before[one] if refused else one.take(tokens, before[one], now)
                full_at[one.bucket] = after
                self._remaining[one] = one.remaining(after, now)
        if refused:
            raise _refusal(slowest, waits[slowest])


def _refusal(limit: RateLimit, seconds: float) -> RateLimited:
    whose = f"of the key {limit.key!r}" if limit.key else "of the whole service"
    wanted = f"expected at most {limit.per_second:g} {limit.unit} a second {whose}"
    return RateLimited(f"rate limit: {wanted}, got more", max(1, math.ceil(seconds)))
