"""Runs graph calls: small ones inline, the others in batches on compute threads.

The event loop never waits for a long run. The routes, the streams and the jobs call it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Protocol, TypeVar

from hsoftmax.runtime.devices import DeviceLost, DeviceOutOfMemory
from hsoftmax.runtime.weights_guard import WeightsChanged
from hsoftmax.service.errors import (
    BundleChanged,
    DeadlineExceeded,
    DeviceFailed,
    DeviceFull,
    InferenceFailed,
    NotReady,
    Overloaded,
    ServiceError,
)
from hsoftmax.service.logging import Log

from .batching import batch_key, count_items
from .call import GraphCall, GraphResult, Lane, WorkItem, lane_of
from .cost_model import CostModel
from .executor import BatchResult, Executor
from .scheduler import QueueLimits, Scheduler
from .serializer import Serializer

# Multiply-adds that cost less than the handover to a thread and back: about 0.2 ms.
INLINE_MAX_COST = 2**20

_STOPPING = "not ready: the service is stopping"
_JOIN_TIMEOUT_S = 5.0

T = TypeVar("T")


class EngineMetrics(Protocol):
    """The metrics that the engine records, on the event loop's thread."""

    def batch(self, lane: str, rows: int, requests: int) -> None:
        """Record a batch that has run."""

    def unanswered(self, lane: str, outcome: str) -> None:
        """Record a request that was rejected, cancelled or expired."""


class Engine:
    """Scheduler, compute threads and serializer of one process; closed once, at the end."""

    def __init__(
        self,
        threads: int,
        log: Log,
        metrics: EngineMetrics,
        *,
        limits: QueueLimits,
        timeout: float,
        inline_max_cost: int = INLINE_MAX_COST,
        batching: bool = True,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._timeout = timeout
        self._inline_max_cost = inline_max_cost
        self._closed = self._device_lost = False
        self._serializer = Serializer()
        cost_model = CostModel()
        self._scheduler = Scheduler(
            limits, cost_model, self._serializer, threads=threads, batching=batching
        )
        self._executor = Executor(
            self._scheduler,
            cost_model,
            log,
            threads=threads,
            timeout=timeout,
            on_batch=self._report_batch,
        )

    async def run(self, call: GraphCall) -> GraphResult:
        """Run a call, inline or in a batch.

        Raises:
            Overloaded: the lane has no room.
            DeadlineExceeded: the call's timeout has passed.
            InferenceFailed: the graph failed; the log has the reason.
            DeviceFailed, DeviceFull: the device failed, or it has too little memory.
            BundleChanged: the weights were changed in place.
            NotReady: the service is stopping.
        """
        return self.run_inline(call) if self.is_small(call) else await self.submit(call)

    def is_small(self, call: GraphCall) -> bool:
        """True if the call is small enough to run inline and its lane is empty."""
        lane = lane_of(call.session.task)
        small = call.cost <= self._inline_max_cost and call.session.on_cpu
        return small and not self._scheduler.waiting(lane)

    def run_inline(self, call: GraphCall) -> GraphResult:
        """Run a call on the calling thread. Raises as `run` does."""
        session = call.session
        started = perf_counter()
        try:
            arrays = session.run(call.feeds)
        except Exception as error:
            raise self._failure(session.task, error) from None
        return GraphResult(arrays, 0.0, perf_counter() - started)

    def admit(self, task: str) -> None:
        """Raise Overloaded, and count it, if the lane of this task has no room for any call.

        A route calls this as soon as it knows the task, so that a rejection costs no decoding.
        """
        lane = lane_of(task)
        if self._scheduler.is_full(lane):
            self._metrics.unanswered(lane, "rejected")
            raise Overloaded(*self._scheduler.rejection(lane))

    def submit(self, call: GraphCall) -> asyncio.Future[GraphResult]:
        """Queue a call for the compute threads; cancelling the future cancels the call.

        Raises:
            Overloaded: the lane has no room.
            NotReady: the service is stopping.
        """
        if self._closed:
            raise NotReady(_STOPPING)
        loop = asyncio.get_running_loop()
        item = self._work_item(call, loop.create_future())
        try:
            self._scheduler.put(item)
        except Overloaded:
            self._metrics.unanswered(item.lane, "rejected")
            raise
        timer = loop.call_later(item.timeout, self._expire, item)
        item.future.add_done_callback(partial(self._on_done, item, timer))
        return item.future

    async def run_in_idle(self, function: Callable[[], T], *, num_bytes: int = 0) -> T:
        """Run a long function that is no graph in its turn; it holds so many bytes meanwhile."""
        try:
            return await self._serializer.run(function, num_bytes)
        finally:
            self._scheduler.notify_encoded()

    async def run_steps(self, steps: Iterator[T], *, num_bytes: int = 0) -> list[T]:
        """Run a long function in steps, with other callbacks in between; return their results."""
        try:
            return await self._serializer.run_steps(steps, num_bytes)
        finally:
            self._scheduler.notify_encoded()

    def waiting(self) -> dict[str, int]:
        """The number of requests that wait in each lane."""
        return {lane: self._scheduler.waiting(lane) for lane in Lane}

    def fault(self) -> str | None:
        """The reason why calls may not get done although the process is alive, or None."""
        return "the device is lost" if self._device_lost else self._executor.fault()

    def close(self) -> None:
        """Fail waiting calls, stop running graphs between two nodes, and take no more calls."""
        self._closed = True
        for item in self._scheduler.close():
            _fail(item, NotReady(_STOPPING))
        self._executor.close(_JOIN_TIMEOUT_S)

    def _work_item(self, call: GraphCall, future: asyncio.Future[GraphResult]) -> WorkItem:
        return WorkItem(
            call=call,
            lane=lane_of(call.session.task),
            key=batch_key(call),
            num_items=count_items(call),
            timeout=self._timeout if call.timeout is None else call.timeout,
            future=future,
            submitted=perf_counter(),
            num_bytes=call.num_bytes,
        )

    def _expire(self, item: WorkItem) -> None:
        if not item.future.done():
            self._metrics.unanswered(item.lane, "expired")
            waited = f"{item.timeout:g} s"
            _fail(item, DeadlineExceeded(f"the answer took longer than the {waited} it had"))

    def _on_done(
        self, item: WorkItem, timer: asyncio.TimerHandle, future: asyncio.Future[GraphResult]
    ) -> None:
        timer.cancel()
        if future.cancelled():
            self._metrics.unanswered(item.lane, "cancelled")
        if item.done < item.num_items:
            self._scheduler.cancel(item)

    def _report_batch(self, result: BatchResult) -> None:
        """Log a batch and complete its calls on the event loop. Runs on the compute thread."""
        batch = result.batch
        self._log_batch(result)
        failure = None
        if result.error is not None and not batch.cancelled:  # a cancelled batch was stopped
            failure = self._failure(batch.session.task, result.error)
        with suppress(RuntimeError):  # the loop has ended, and all callers with it
            loop = batch.slices[0].item.future.get_loop()
            loop.call_soon_threadsafe(self._complete, result, failure)

    def _log_batch(self, result: BatchResult) -> None:
        batch = result.batch
        self._log.debug(
            "batch",
            lane=batch.lane,
            task=batch.session.task,
            rows=batch.rows,
            requests=len(batch.slices),
            failed=result.error is not None,
            ms=round(result.seconds * 1e3, 3),
        )

    def _complete(self, result: BatchResult, failure: ServiceError | None) -> None:
        """Set the results of the calls whose last slice was in this batch."""
        batch = result.batch
        self._metrics.batch(batch.lane, batch.rows, len(batch.slices))
        batch.slices[0].item.led.append((batch.rows, result.seconds))
        for one in batch.slices:
            item = one.item
            if failure is not None:
                _fail(item, failure)
                continue
            item.started = item.started or result.started
            item.computed += result.seconds
            item.done += one.num_items
            if item.done == item.num_items and not item.future.done():
                queued = item.started - item.submitted
                outputs = GraphResult(item.arrays, queued, item.computed, item.led)
                item.future.set_result(outputs)

    def _failure(self, task: str, error: BaseException) -> ServiceError:
        """Log an exception of a graph; return the error for the client, without internals."""
        if self._closed:
            return NotReady(_STOPPING)
        if isinstance(error, WeightsChanged):
            self._log.error("bundle_changed", task=task, reason=str(error))
            return BundleChanged(str(error))
        if isinstance(error, DeviceLost):
            self._device_lost = True
            self._log.error("device_lost", task=task, reason=str(error))
            return DeviceFailed("the device is lost: the service has to be restarted")
        if isinstance(error, DeviceOutOfMemory):
            self._log.error("device_out_of_memory", task=task, reason=str(error))
            return DeviceFull(
                "the device has too little memory for this request now: try again, or with fewer "
                "rows"
            )
        self._log.error("inference_failed", task=task, reason=str(error))
        return InferenceFailed("the graph could not be run on this input")


def _fail(item: WorkItem, error: ServiceError) -> None:
    if not item.future.done():
        item.future.set_exception(error)
