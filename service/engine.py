"""Runs graphs: tiny work in place, the rest on threads, so that the event loop never waits.

This is the one way to a session, and where batching, admission and deadlines belong.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import onnxruntime as ort

from models.arrays import Array

from .errors import InferenceFailed
from .log import Log
from .sessions import Feeds, Session

# Multiply-adds that cost less than handing them to a thread and back: some 0.2 ms.
INLINE_WORK = 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outputs:
    """A graph's outputs, and the seconds they waited and took."""

    arrays: list[Array]
    queued: float = 0.0
    computed: float = 0.0


class Engine:
    """Threads for running sessions; closed once, when the service ends."""

    def __init__(self, threads: int, log: Log) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compute")
        self._running: set[ort.RunOptions] = set()
        self._log = log

    async def run(self, session: Session, feeds: Feeds, *, work: int) -> Outputs:
        """Run a graph once; `work` is an estimate of its multiply-adds.

        Raises:
            InferenceFailed: the graph stopped; the log says why.
        """
        if work <= INLINE_WORK:
            return self._run(session, feeds, perf_counter())
        submitted = perf_counter()
        return await self.call(lambda: self._run_stoppable(session, feeds, submitted))

    async def call(self, function: Callable[[], T]) -> T:
        """Run something long on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Stop what runs between two nodes of its graph, and take no more."""
        for options in list(self._running):
            options.terminate = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run_stoppable(self, session: Session, feeds: Feeds, submitted: float) -> Outputs:
        options = ort.RunOptions()  # one each: `terminate` stays set
        self._running.add(options)
        try:
            return self._run(session, feeds, submitted, options)
        finally:
            self._running.discard(options)

    def _run(
        self,
        session: Session,
        feeds: Feeds,
        submitted: float,
        options: ort.RunOptions | None = None,
    ) -> Outputs:
        started = perf_counter()
        try:
            arrays = session.run(feeds, options)
        except Exception as error:
            self._log.error("inference_failed", task=session.task, reason=str(error))
            raise InferenceFailed("the graph could not be run on this input") from None
        return Outputs(arrays, started - submitted, perf_counter() - started)
