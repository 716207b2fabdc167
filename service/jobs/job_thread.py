"""Thread that executes jobs one after another. `JobManager` starts one in every process.

With a state folder, only the process that holds its file lock executes jobs. The operating system
releases the lock when that process ends, however it ends, and another process then resumes the
jobs. With a shared database every process executes one job at a time, under the job's lease.
"""

import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from hsoftmax.service.errors import JobsUnavailable

from .batch_cancellation import expire_waiting
from .claims import claim_next_job, claim_pending_outputs
from .completion import publish_pending_outputs
from .execution import execute_job
from .job_context import JobContext
from .retention import sweep

_POLL_INTERVAL_S = 0.5  # between looks for a job in the database
_SWEEP_INTERVAL_S = 60.0  # between removals of expired files and jobs
_RETRY_INTERVAL_S = 5.0  # after an unexpected error


class JobThread:
    """The thread, started at once. `build_context` returns None while no job can be executed."""

    def __init__(self, build_context: Callable[[], JobContext | None]) -> None:
        self._build_context = build_context
        self._wake = threading.Event()
        self.stopped = False
        self._lock_descriptor: int | None = None
        self._next_sweep = 0.0
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._available = True
        self._thread = threading.Thread(target=self._loop, daemon=True, name="jobs")
        self._thread.start()

    def wake(self) -> None:
        """Look for a job now instead of at the next poll."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Stop the thread. The next process with the lock resumes an unfinished job."""
        self.stopped = True
        self._wake.set()
        self._thread.join(timeout)

    def _loop(self) -> None:
        pause = 0.0
        while not self.stopped:
            self._wake.wait(pause)
            self._wake.clear()
            pause = self._step()
        self._release_lock()

    def _step(self) -> float:
        """Execute at most one job. Return the seconds to wait before the next step."""
        context = None
        try:
            context = self._build_context()
            self._log_available(context)
            if context is None or self.stopped or context.stopping():
                self._release_lock()
            elif self._acquire_lock(context):
                return self._run_next(context)
        except JobsUnavailable as error:
            self._log_unavailable(context, error)
            return _RETRY_INTERVAL_S
        except Exception as error:  # the next step may succeed
            if context is not None and not context.stopping():
                context.log.error("jobs_failed", exc_info=error)
            return _RETRY_INTERVAL_S
        return _POLL_INTERVAL_S

    def _log_unavailable(self, context: JobContext | None, error: JobsUnavailable) -> None:
        """Log the first of several failures. Without a context the manager has logged it."""
        if self._available and context is not None:
            context.log.warning("jobs_unavailable", reason=context.reason_of(error))
        self._available = False

    def _log_available(self, context: JobContext | None) -> None:
        if context is not None and not self._available:
            context.log.info("jobs_available")
            self._available = True

    def _run_next(self, context: JobContext) -> float:
        self._maintain(context)
        lease = context.settings.job_lease
        if (job := claim_next_job(context.database, self._holder, lease)) is None:
            return _POLL_INTERVAL_S
        execute_job(job, context)
        return 0.0

    def _maintain(self, context: JobContext) -> None:
        context.database.fill_reserve()
        expire_waiting(context.database, int(time.time()))
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + min(_SWEEP_INTERVAL_S, context.settings.job_retention)
        lease = context.settings.job_lease
        for job in claim_pending_outputs(context.database, self._holder, lease):
            publish_pending_outputs(job, context)
        sweep(context.database, context.state_dir, context.settings.job_retention)

    def _acquire_lock(self, context: JobContext) -> bool:
        """Return True if this process may execute jobs.

        It then holds the state folder's lock until `_release_lock`, unless the database is shared.
        """
        if context.database.shared:
            return True
        if self._lock_descriptor is not None:
            return True
        descriptor = os.open(context.state_dir.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock_descriptor = descriptor
        return True

    def _release_lock(self) -> None:
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None
