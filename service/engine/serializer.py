"""What is long and no graph, such as writing an answer: one at a time, between all other work.

A thread would gain nothing, as whoever writes JSON holds the interpreter's lock; and it would cost
much: uvloop takes that lock anew for every socket, and would wait for a whole answer each time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

_NEWEST = 0.2  # of the running mean


class Serializer:
    """How much is to be written, how long that will take, and whose turn it is."""

    def __init__(self) -> None:
        self.pending = 0
        self.num_bytes = 0
        self._seconds = 0.0
        self._turn = asyncio.Lock()

    @property
    def wait(self) -> float:
        """Seconds until what is pending has been written."""
        return self.pending * self._seconds

    async def run(self, function: Callable[[], T], num_bytes: int) -> T:
        """The function's result; so many bytes are held until it is there."""
        async with self._holding(num_bytes):
            await asyncio.sleep(0)  # all that is ready goes first
            started = perf_counter()
            result = function()
            self._learn(perf_counter() - started)
            return result

    async def run_each(self, steps: Iterator[T], num_bytes: int) -> list[T]:
        """What the steps give; nobody else's are between them, but all else that is ready is."""
        async with self._holding(num_bytes):
            results: list[T] = []
            taken, more = 0.0, True
            while more:
                await asyncio.sleep(0)
                started = perf_counter()
                some = list(islice(steps, 1))
                results += some
                more = bool(some)
                taken += perf_counter() - started
            self._learn(taken)
            return results

    @asynccontextmanager
    async def _holding(self, num_bytes: int) -> AsyncIterator[None]:
        """Wait for one's turn, and be counted from now until it is over."""
        self.pending += 1
        self.num_bytes += num_bytes
        try:
            async with self._turn:
                yield
        finally:
            self.pending -= 1
            self.num_bytes -= num_bytes

    def _learn(self, seconds: float) -> None:
        self._seconds += _NEWEST * (seconds - self._seconds)
