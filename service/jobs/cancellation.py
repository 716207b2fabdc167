"""Whether a job should go on, asked by all threads that work at it, many times a second."""

import threading
import time

from .batch_store import Job, expire_waiting, is_cancelled
from .errors import Interrupted
from .job_context import JobContext

_LOOK = 0.2  # seconds between looks at the database


class CancellationCheck:
    """One job's."""

    def __init__(self, job: Job, shop: JobContext) -> None:
        self._job = job
        self._shop = shop
        self._looking = threading.Lock()
        self._look_at = 0.0
        self._cancelled = False

    def __call__(self) -> None:
        """Raise Interrupted if the job is to stop."""
        if self._shop.stopping():
            raise Interrupted("stopping")
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._look_at = time.monotonic() + _LOOK
                self._look()
            finally:
                self._looking.release()
        if self._cancelled:
            raise Interrupted("cancelled")
        if time.time() >= self._job.batch.expires_at:
            raise Interrupted("expired")

    def _look(self) -> None:
        self._cancelled = is_cancelled(self._shop.database, self._job.id)
        expire_waiting(self._shop.database, int(time.time()))  # of those behind this one
        self._shop.recount()
