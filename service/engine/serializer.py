"""Runs long functions that are no graphs, such as the encoding of a response, one at a time.

They run on the event loop, between all other callbacks that are ready. A thread gains nothing,
because JSON encoding holds the interpreter's lock. A thread also costs much: uvloop takes that lock
for every socket, and waits for a whole response each time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

_NEWEST_WEIGHT = 0.2  # of the newest measurement in the running mean


class Serializer:
    """The queue of these functions: its length, its bytes, and the mean seconds of a function.

    Attributes:
        pending: functions that wait or run
        num_bytes: bytes that they hold
    """

    def __init__(self) -> None:
        self.pending = 0
        self.num_bytes = 0
        self._mean_seconds = 0.0
        self._lock = asyncio.Lock()

    @property
    def wait_seconds(self) -> float:
        """Estimated seconds until all pending functions are done."""
        return self.pending * self._mean_seconds

    async def run(self, function: Callable[[], T], num_bytes: int) -> T:
        """Run the function in its turn; `num_bytes` count as held until it is done."""
        async with self._turn(num_bytes):
            await asyncio.sleep(0)  # callbacks that are ready run first
            started = perf_counter()
            result = function()
            self._observe(perf_counter() - started)
            return result

    async def run_steps(self, steps: Iterator[T], num_bytes: int) -> list[T]:
        """Run the steps in their turn and collect their results.

        Other callbacks run between two steps, but no other function of this queue.
        """
        async with self._turn(num_bytes):
            results: list[T] = []
            seconds, more = 0.0, True
            while more:
                await asyncio.sleep(0)
                started = perf_counter()
                step = list(islice(steps, 1))
                results += step
                more = bool(step)
                seconds += perf_counter() - started
            self._observe(seconds)
            return results

    @asynccontextmanager
    async def _turn(self, num_bytes: int) -> AsyncIterator[None]:
        """Wait for the lock; count as pending from now until it is released."""
        self.pending += 1
        self.num_bytes += num_bytes
        try:
            async with self._lock:
                yield
        finally:
            self.pending -= 1
            self.num_bytes -= num_bytes

    def _observe(self, seconds: float) -> None:
        self._mean_seconds += _NEWEST_WEIGHT * (seconds - self._mean_seconds)
