"""The lease of a job: while a process executes it, a thread tells the database so.

A process that ends, hangs or loses the database no longer renews its leases. Another replica then
takes the job. The process that lost it stops at its next check, by its own clock, and the database
refuses what it still wants to record.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hsoftmax.service.errors import JobsUnavailable

from .batch_store import StoredJob
from .claims import renew_lease
from .database import Database

_RENEWALS = 4  # in the time of one lease


class Lease:
    """The lease of one job, renewed by a thread until `end`."""

    def __init__(self, database: Database, job: StoredJob, seconds: float) -> None:
        self._database = database
        self._job = job
        self._seconds = seconds
        self._ended = threading.Event()
        self._taken = False
        self._until = time.monotonic() + seconds * (1 - 1 / _RENEWALS)
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()

    def is_lost(self) -> bool:
        """True if another process may execute the job by now."""
        return self._taken or time.monotonic() >= self._until

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            asked = time.monotonic()
            try:
                self._taken = not renew_lease(self._database, self._job, self._seconds)
            except JobsUnavailable:  # it may answer before the lease ends
                continue
            if self._taken:
                return
            self._until = asked + self._seconds


@contextmanager
def holding(database: Database, job: StoredJob, seconds: float) -> Iterator[Lease | None]:
    """Hold the job until the block ends. None if no other process can take it anyway."""
    if not database.shared:
        yield None
        return
    lease = Lease(database, job, seconds)
    try:
        yield lease
    finally:
        lease.end()
