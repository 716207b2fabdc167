"""Compute threads: each takes the next batch from the scheduler, runs it and reports the result.

A thread forms its batch when it is free. The batch holds all calls that queued meanwhile, and
nothing waits for a timer.
"""

import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, perf_counter

from hsoftmax.service.logging import Log

from .batching import merge_feeds, store_outputs
from .call import Batch
from .cost_model import CostModel
from .scheduler import Scheduler

_STUCK_FACTOR = 2  # a run is stuck once it takes this many times the longest timeout of its calls


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A batch that has run: its start, its seconds, and the error if it failed."""

    batch: Batch
    error: BaseException | None
    started: float
    seconds: float


BatchCallback = Callable[[BatchResult], None]


@dataclass(eq=False, slots=True)
class _ComputeThread:
    thread: threading.Thread
    batch: Batch | None = None
    stuck_at: float = math.inf  # monotonic() value from which its run counts as stuck


class Executor:
    """A fixed number of compute threads.

    A thread that dies is replaced, and `fault` reports a stuck one. A failed batch of several
    slices runs again slice by slice, so that a bad input fails its own call only. The result of
    every other run goes to `on_batch`, in the thread that ran it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        cost_model: CostModel,
        log: Log,
        *,
        threads: int,
        timeout: float,
        on_batch: BatchCallback,
    ) -> None:
        self._scheduler = scheduler
        self._cost_model = cost_model
        self._log = log
        self._on_batch = on_batch
        self._timeout = timeout
        self._store_lock = threading.Lock()
        self._numbers = itertools.count()
        self._closed = False
        self._threads = [self._start() for _ in range(threads)]

    def fault(self) -> str | None:
        """The reason why calls may not get done, or None."""
        now = monotonic()
        if any(now > one.stuck_at for one in self._threads):
            return "a run is stuck"
        if not self._closed and not all(one.thread.is_alive() for one in self._threads):
            return "a compute thread has ended"
        return None

    def close(self, timeout: float) -> None:
        """Stop running graphs between two nodes and join the threads.

        The scheduler must be closed before.
        """
        self._closed = True
        for one in self._threads:
            if (batch := one.batch) is not None:
                batch.options.terminate = True
        for one in self._threads:
            one.thread.join(timeout)

    def _start(self) -> _ComputeThread:
        thread = threading.Thread(
            target=lambda: self._loop(this), name=f"compute-{next(self._numbers)}", daemon=True
        )
        this = _ComputeThread(thread)
        thread.start()
        return this

    def _loop(self, this: _ComputeThread) -> None:
        while self._run_next(this):
            pass

    def _run_next(self, this: _ComputeThread) -> bool:
        """Run the next batch. On return no variable refers to the batch or to its bundle."""
        if (batch := self._scheduler.next_batch()) is None:
            return False
        try:
            self._run(batch, this)
        except BaseException as error:  # callers must get an error even if the thread dies
            self._replace(this, batch, error)
            return False
        finally:
            self._scheduler.complete(batch)
        return True

    def _replace(self, this: _ComputeThread, batch: Batch, error: BaseException) -> None:
        self._log.error("compute_thread_died", exc_info=error)
        if not self._closed:
            self._threads[self._threads.index(this)] = self._start()
        self._on_batch(BatchResult(batch, error, perf_counter(), 0.0))

    def _run(self, batch: Batch, this: _ComputeThread) -> None:
        result = self._run_once(batch, this)
        if result.error is None or len(batch.slices) == 1 or self._closed:
            return self._on_batch(result)
        for one in batch.slices:
            if not one.item.cancelled:
                self._on_batch(self._run_once(self._scheduler.single(one), this))

    def _run_once(self, batch: Batch, this: _ComputeThread) -> BatchResult:
        longest = max(self._timeout, *(one.item.timeout for one in batch.slices))
        this.stuck_at, this.batch = monotonic() + _STUCK_FACTOR * longest, batch
        if self._closed:  # `close` may have run before `this.batch` was set
            batch.options.terminate = True
        started = perf_counter()
        error: Exception | None = None
        try:
            outputs = batch.session.run(merge_feeds(batch.slices), batch.options)
            with self._store_lock:
                store_outputs(outputs, batch.slices)
        except Exception as raised:
            error = raised
        finally:
            this.batch, this.stuck_at = None, math.inf
        seconds = perf_counter() - started
        if error is None:
            self._cost_model.observe(batch.lane, batch.cost, seconds)
        return BatchResult(batch, error, started, seconds)
