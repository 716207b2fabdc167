"""Tiny work at once, the rest in batches on threads, so that the event loop never waits."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Protocol, TypeVar

from hsoftmax.service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    ServiceError,
)
from hsoftmax.service.logging import Log

from .batching import count_units, key
from .call import GraphCall, GraphResult, Lane, WorkItem, lane_of
from .cost_model import CostModel
from .executor import BatchResult, Workers
from .scheduler import Queue, QueueLimits
from .serializer import Serializer

# Multiply-adds that cost less than handing them to a thread and back: some 0.2 ms.
INLINE_MAX_COST = 2**20

_STOPPING = "not ready: the service is stopping"
_PATIENCE = 5.0  # seconds for threads to end

T = TypeVar("T")


class EngineMetrics(Protocol):
    """What is counted of the engine, in the event loop's thread."""

    def batch(self, lane: str, rows: int, requests: int) -> None:
        """A batch was run."""

    def given_up(self, lane: str, why: str) -> None:
        """A request was rejected, cancelled or expired."""


class Engine:
    """Queue and threads; closed once, when the service ends."""

    def __init__(
        self,
        threads: int,
        log: Log,
        tally: EngineMetrics,
        *,
        bounds: QueueLimits,
        timeout: float,
        inline_work: int = INLINE_MAX_COST,
        batching: bool = True,
    ) -> None:
        self._log = log
        self._tally = tally
        self._timeout = timeout
        self._inline_work = inline_work
        self._closed = False
        self._writers = Serializer()
        pace = CostModel()
        self._queue = Queue(bounds, pace, self._writers, threads=threads, batching=batching)
        self._workers = Workers(
            self._queue, pace, log, threads=threads, timeout=timeout, report=self._ran
        )

    async def run(self, call: GraphCall) -> GraphResult:
        """Run a graph once, at once or in a batch.

        Raises:
            Overloaded: too much is waiting already.
            DeadlineExceeded: nobody wants the answer any more.
            InferenceFailed: the graph stopped; the log says why.
            NotReady: the service is stopping.
        """
        return self.run_inline(call) if self.is_small(call) else await self.submit(call)

    def is_small(self, call: GraphCall) -> bool:
        """Whether to run it here is less work than to hand it to a thread, and its turn is now."""
        lane = lane_of(call.session.task)
        tiny = call.work <= self._inline_work and call.session.on_cpu
        return tiny and not self._queue.waiting(lane)

    def run_inline(self, call: GraphCall) -> GraphResult:
        """Run a graph here and now. Raises InferenceFailed."""
        session = call.session
        started = perf_counter()
        try:
            arrays = session.run(call.feeds)
        except Exception as error:
            raise self._failure(session.task, error) from None
        return GraphResult(arrays, 0.0, perf_counter() - started)

    def admit(self, task: str) -> None:
        """Raise Overloaded, and count it, if the lane of this task has no room for any call.

        A route asks as soon as it knows its task, so that a refusal costs no reading of the body.
        """
        lane = lane_of(task)
        if self._queue.is_full(lane):
            self._tally.given_up(lane, "rejected")
            raise Overloaded(*self._queue.reason(lane))

    def submit(self, call: GraphCall) -> asyncio.Future[GraphResult]:
        """Let a call wait for a thread; to cancel the future is to give the call up."""
        if self._closed:
            raise NotReady(_STOPPING)
        loop = asyncio.get_running_loop()
        item = self._job(call, loop.create_future())
        try:
            self._queue.put(item)
        except Overloaded:
            self._tally.given_up(item.lane, "rejected")
            raise
        timer = loop.call_later(item.timeout, self._expire, item)
        item.future.add_done_callback(partial(self._settled, item, timer))
        return item.future

    async def call(self, function: Callable[[], T], *, num_bytes: int = 0) -> T:
        """Run something long that is no graph, and holds so many bytes, when it is its turn."""
        try:
            return await self._writers.run(function, num_bytes)
        finally:
            self._queue.look_again()

    async def run_steps(self, steps: Iterator[T], *, num_bytes: int = 0) -> list[T]:
        """The same in steps, between which others get on; what they give."""
        try:
            return await self._writers.run_each(steps, num_bytes)
        finally:
            self._queue.look_again()

    def waiting(self) -> dict[str, int]:
        """How many requests wait in each lane."""
        return {lane: self._queue.waiting(lane) for lane in Lane}

    def fault(self) -> str | None:
        """Why work may not get done although the process is there, or None."""
        return self._workers.fault()

    def close(self) -> None:
        """Give up what waits, stop what runs between two nodes of its graph, take no more."""
        self._closed = True
        for item in self._queue.close():
            _fail(item, NotReady(_STOPPING))
        self._workers.close(_PATIENCE)

    def _job(self, call: GraphCall, future: asyncio.Future[GraphResult]) -> WorkItem:
        return WorkItem(
            call=call,
            lane=lane_of(call.session.task),
            key=key(call),
            units=count_units(call),
            timeout=self._timeout if call.timeout is None else call.timeout,
            future=future,
            submitted=perf_counter(),
            num_bytes=call.num_bytes,
        )

    def _expire(self, item: WorkItem) -> None:
        if not item.future.done():
            self._tally.given_up(item.lane, "expired")
            waited = f"{item.timeout:g} s"
            _fail(item, DeadlineExceeded(f"the answer took longer than the {waited} it had"))

    def _settled(
        self, item: WorkItem, timer: asyncio.TimerHandle, future: asyncio.Future[GraphResult]
    ) -> None:
        timer.cancel()
        if future.cancelled():
            self._tally.given_up(item.lane, "cancelled")
        if item.done < item.units:
            self._queue.drop(item)

    def _ran(self, ran: BatchResult) -> None:
        """Called by the thread that ran it."""
        batch = ran.batch
        failed = ran.error is not None
        task, requests = batch.session.task, len(batch.slices)
        self._say_batch(batch.lane, task, batch.rows, requests, ran.seconds, failed=failed)
        failure = None
        if ran.error is not None and batch.wanted:  # else it was stopped for that reason
            failure = self._failure(batch.session.task, ran.error)
        with suppress(RuntimeError):  # the loop has ended, and all who waited with it
            loop = batch.slices[0].item.future.get_loop()
            loop.call_soon_threadsafe(self._settle, ran, failure)

    def _say_batch(
        self, lane: Lane, task: str, rows: int, requests: int, seconds: float, *, failed: bool
    ) -> None:
        self._log.debug(
            "batch",
            lane=lane,
            task=task,
            rows=rows,
            requests=requests,
            failed=failed,
            ms=round(seconds * 1e3, 3),
        )

    def _settle(self, ran: BatchResult, failure: ServiceError | None) -> None:
        """Answer those whose last slice this was."""
        self._tally.batch(ran.batch.lane, ran.batch.rows, len(ran.batch.slices))
        for one in ran.batch.slices:
            item = one.item
            if failure is not None:
                _fail(item, failure)
                continue
            item.started = item.started or ran.started
            item.computed += ran.seconds
            item.done += one.stop - one.start
            if item.done == item.units and not item.future.done():
                queued = item.started - item.submitted
                item.future.set_result(GraphResult(item.arrays, queued, item.computed))

    def _failure(self, task: str, error: BaseException) -> ServiceError:
        if self._closed:
            return NotReady(_STOPPING)
        self._log.error("inference_failed", task=task, reason=str(error))
        return InferenceFailed("the graph could not be run on this input")


def _fail(item: WorkItem, error: ServiceError) -> None:
    if not item.future.done():
        item.future.set_exception(error)
