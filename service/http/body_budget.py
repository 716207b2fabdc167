"""Bounds the bytes of all request bodies that are being received at the same time.

Each body has its own limit, but one client can send many of them on many connections.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hsoftmax.service.errors import Overloaded

_RETRY_AFTER_S = 1


class Reservation:
    """Bytes that one body has taken from the budget so far."""

    def __init__(self, budget: "BodyBudget") -> None:
        self._budget = budget
        self.num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Take more bytes. Raises Overloaded if all bodies together would exceed the budget."""
        budget = self._budget
        if budget.reserved + num_bytes > budget.max_bytes:
            raise Overloaded(
                f"bodies: expected at most {budget.max_bytes} bytes received at once, got more",
                _RETRY_AFTER_S,
            )
        budget.reserved += num_bytes
        self.num_bytes += num_bytes


class BodyBudget:
    """Counts the bytes of bodies that are being received. Used on the event loop only."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.reserved = 0

    @contextmanager
    def reservation(self) -> Iterator[Reservation]:
        """Give the bytes back at the end, however the body ends."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.reserved -= reservation.num_bytes
