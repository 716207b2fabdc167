"""Checks if a job must stop. All threads of the job call the check many times a second."""

import threading
import time

from .batch_cancellation import expire_waiting, is_cancelled
from .batch_store import StoredJob
from .errors import Interrupted
from .job_context import JobContext

_POLL_INTERVAL_S = 0.2  # between reads of the database


class CancellationCheck:
    """Check of one job. It reads the database at most five times a second, on one thread."""

    def __init__(self, job: StoredJob, context: JobContext) -> None:
        self._job = job
        self._context = context
        self._poll_lock = threading.Lock()
        self._next_poll = 0.0
        self._cancelled = False

    def __call__(self) -> None:
        """Raise Interrupted if the job must stop."""
        if self._context.stopping():
            raise Interrupted("stopping")
        if self._context.lost():
            raise Interrupted("lost")
        if time.monotonic() >= self._next_poll and self._poll_lock.acquire(blocking=False):
            try:
                self._next_poll = time.monotonic() + _POLL_INTERVAL_S
                self._poll()
            finally:
                self._poll_lock.release()
        if self._cancelled:
            raise Interrupted("cancelled")
        if time.time() >= self._job.batch.expires_at:
            raise Interrupted("expired")

    def _poll(self) -> None:
        self._cancelled = is_cancelled(self._context.database, self._job.id)
        expire_waiting(self._context.database, int(time.time()))  # jobs that wait behind this one
        self._context.refresh_counts()
