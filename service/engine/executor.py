"""Threads that take batches and run them, and whether they still do.

A batch is formed by the thread that will run it, the moment it is free: whatever queued meanwhile
is in it, and nothing waits for a timer.
"""

import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, perf_counter

from hsoftmax.service.logging import Log

from .batching import merged, store
from .call import Batch
from .cost_model import CostModel
from .scheduler import Queue

_STUCK = 2  # a run is stuck when it takes so many times longer than anyone waits for it


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A batch that was run: when, for how many seconds, and why it failed, if it did."""

    batch: Batch
    error: BaseException | None
    started: float
    seconds: float


Report = Callable[[BatchResult], None]


@dataclass(eq=False, slots=True)
class _Worker:
    thread: threading.Thread
    batch: Batch | None = None
    limit: float = math.inf  # when its run will count as stuck


class Workers:
    """A fixed number of threads; one that dies is replaced, one that is stuck is told of.

    A batch of several that failed is run again one by one; every other run is reported, in the
    thread that ran it.
    """

    def __init__(
        self,
        queue: Queue,
        pace: CostModel,
        log: Log,
        *,
        threads: int,
        timeout: float,
        report: Report,
    ) -> None:
        self._queue = queue
        self._pace = pace
        self._log = log
        self._report = report
        self._timeout = timeout
        self._storing = threading.Lock()
        self._names = itertools.count()
        self._closed = False
        self._workers = [self._start() for _ in range(threads)]

    def fault(self) -> str | None:
        """Why work may not get done, or None."""
        now = monotonic()
        if any(now > worker.limit for worker in self._workers):
            return "a run is stuck"
        if not self._closed and not all(worker.thread.is_alive() for worker in self._workers):
            return "a compute thread has ended"
        return None

    def close(self, patience: float) -> None:
        """Stop what runs, between two nodes of its graph; the queue must be closed already."""
        self._closed = True
        for worker in self._workers:
            if (batch := worker.batch) is not None:
                batch.options.terminate = True
        for worker in self._workers:
            worker.thread.join(patience)

    def _start(self) -> _Worker:
        thread = threading.Thread(
            target=lambda: self._work(worker), name=f"compute-{next(self._names)}", daemon=True
        )
        worker = _Worker(thread)
        thread.start()
        return worker

    def _work(self, worker: _Worker) -> None:
        while self._work_once(worker):
            pass

    def _work_once(self, worker: _Worker) -> bool:
        """Take a batch and run it; on return nothing holds it, nor the bundle that it asked."""
        if (batch := self._queue.take()) is None:
            return False
        try:
            self._run(batch, worker)
        except BaseException as error:  # not even this may leave anyone waiting
            self._replace(worker, batch, error)
            return False
        finally:
            self._queue.ran(batch)
        return True

    def _replace(self, worker: _Worker, batch: Batch, error: BaseException) -> None:
        self._log.error("compute_thread_died", exc_info=error)
        if not self._closed:
            self._workers[self._workers.index(worker)] = self._start()
        self._report(BatchResult(batch, error, perf_counter(), 0.0))

    def _run(self, batch: Batch, worker: _Worker) -> None:
        ran = self._run_once(batch, worker)
        if ran.error is None or len(batch.slices) == 1 or self._closed:
            return self._report(ran)
        for one in batch.slices:  # whoever spoilt it spoils only its own
            if not one.item.dropped:
                self._report(self._run_once(self._queue.alone(one), worker))

    def _run_once(self, batch: Batch, worker: _Worker) -> BatchResult:
        longest = max(self._timeout, *(one.item.timeout for one in batch.slices))
        worker.limit, worker.batch = monotonic() + _STUCK * longest, batch
        if self._closed:  # since the batch was taken
            batch.options.terminate = True
        started = perf_counter()
        error: Exception | None = None
        try:
            outputs = batch.session.run(merged(batch.slices), batch.options)
            with self._storing:
                store(outputs, batch.slices)
        except Exception as raised:
            error = raised
        finally:
            worker.batch, worker.limit = None, math.inf
        seconds = perf_counter() - started
        if error is None:
            self._pace.learn(batch.lane, batch.work, seconds)
        return BatchResult(batch, error, started, seconds)
