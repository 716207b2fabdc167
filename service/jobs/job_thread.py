"""The thread that carries out jobs, one after another, in one process for each state folder.

Every process has such a thread, and whichever has the lock does the work; the lock goes with its
process, whatever way that ends, and the next one takes up what was left.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable

from .batch_store import expire_waiting, next_job, owing
from .completion import give_what_is_owed
from .execution import carry_out
from .job_context import JobContext
from .retention import sweep

_LOOK = 0.5  # seconds between looks for what is to be done
_SWEEP = 60.0  # seconds between sweeps
_AFTER_FAILURE = 5.0  # seconds before the next try


class Runner:
    """Runs until it is stopped; `open_shop` gives None while there is nothing to be done."""

    def __init__(self, open_shop: Callable[[], JobContext | None]) -> None:
        self._open_shop = open_shop
        self._wake = threading.Event()
        self.stopped = False
        self._lock: int | None = None
        self._sweep_at = 0.0
        self._thread = threading.Thread(target=self._live, daemon=True, name="jobs")
        self._thread.start()

    def wake(self) -> None:
        """There is something to be done now."""
        self._wake.set()

    def stop(self, patience: float) -> None:
        """Stop after what runs; what is left is taken up again by whoever has the lock next."""
        self.stopped = True
        self._wake.set()
        self._thread.join(patience)

    def _live(self) -> None:
        pause = 0.0
        while not self.stopped:
            self._wake.wait(pause)
            self._wake.clear()
            pause = self._round()
        self._let_go()

    def _round(self) -> float:
        """Do what there is to do; the seconds until it is worth looking again."""
        shop = None
        try:
            shop = self._open_shop()
            if shop is None or self.stopped or shop.stopping():
                self._let_go()
            elif self._hold(shop):
                return self._work(shop)
        except Exception as error:  # the next round may go better
            if shop is not None and not shop.stopping():
                shop.log.error("jobs_failed", exc_info=error)
            return _AFTER_FAILURE
        return _LOOK

    def _work(self, shop: JobContext) -> float:
        self._keep_house(shop)
        if (job := next_job(shop.database)) is None:
            return _LOOK
        carry_out(job, shop)
        return 0.0

    def _keep_house(self, shop: JobContext) -> None:
        expire_waiting(shop.database, int(time.time()))
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + min(_SWEEP, shop.settings.job_retention)
        for job in owing(shop.database):
            give_what_is_owed(job, shop)
        sweep(shop.database, shop.place, shop.settings.job_retention)

    def _hold(self, shop: JobContext) -> bool:
        """Whether this process is the one; once it is, it is until it lets go."""
        if self._lock is not None:
            return True
        lock = os.open(shop.place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
