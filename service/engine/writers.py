"""What is long and no graph, such as writing an answer: one at a time, between all other work.

A thread would gain nothing, as whoever writes JSON holds the interpreter's lock; and it would cost
much: uvloop takes that lock anew for every socket, and would wait for a whole answer each time.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

_NEWEST = 0.2  # of the running mean


class Writers:
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
        self.pending += 1
        self.num_bytes += num_bytes
        try:
            async with self._turn:
                await asyncio.sleep(0)  # all that is ready goes first
                return self._timed(function)
        finally:
            self.pending -= 1
            self.num_bytes -= num_bytes

    def _timed(self, function: Callable[[], T]) -> T:
        started = perf_counter()
        result = function()
        self._seconds += _NEWEST * (perf_counter() - started - self._seconds)
        return result
