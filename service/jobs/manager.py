"""Job subsystem of one app: state folder, database and job thread. Routes and the app call it.

The state folder is created on first use. A database that several replicas share is opened at the
start, as they may have left jobs in it.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

from hsoftmax.scoring.errors import NewerSchema
from hsoftmax.service.engine import Engine
from hsoftmax.service.errors import JobsUnavailable
from hsoftmax.service.health import Health
from hsoftmax.service.logging import Log
from hsoftmax.service.metrics import Metrics
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings

from .batch_queries import count_by_status
from .database import Database
from .input_object import expect_store_library
from .job_context import JobContext
from .job_thread import JobThread
from .open_state import StateStore
from .reserve import NO_ROOM, no_room
from .state_dir import StateDir, is_writable

_OPEN_INTERVAL_S = 1.0  # between two tries to reach a database that did not answer
_STOP_TIMEOUT_S = 10.0  # for the graph run in progress

P = ParamSpec("P")
T = TypeVar("T")


class JobManager:
    """Owns the database and the job thread. The app starts and stops it.

    Raises:
        StartError: the settings of the state do not fit together, or a library is missing.
    """

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        engine: Engine,
        health: Health,
        metrics: Metrics,
        log: Log,
    ) -> None:
        expect_store_library(settings)
        self._store = StateStore(settings)
        self.state_dir: StateDir = self._store.state_dir
        self._settings = settings
        self._repository = repository
        self._engine = engine
        self._health = health
        self._metrics = metrics
        self._log = log
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: JobThread | None = None
        self._by_status: Mapping[str, int] = {}
        self._warned = False
        self._retry_at = 0.0
        self._reason = ""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the job thread, which resumes unfinished jobs. The engine runs on `loop`."""
        self._loop = loop
        if not is_writable(self.state_dir):
            self._warn("the folder cannot be written")
        self._thread = JobThread(self._build_context)

    def stop(self) -> None:
        """Stop the job thread and close the database. Unfinished jobs stay in the state folder."""
        if self._thread is not None:
            self._thread.stop(_STOP_TIMEOUT_S)
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def database(self) -> Database:
        """Return the database, created on first use.

        Raises:
            StorageFull: its disk has no room for it.
            JobsUnavailable: it cannot be created or reached.
        """
        with self._lock:
            if self._database is None:
                if time.monotonic() < self._retry_at:
                    raise JobsUnavailable(self._reason)
                try:
                    self._database = self._store.open()
                except JobsUnavailable as error:
                    self._warn(self._store.reason_of(error))
                    # Requests do not queue up behind connections that time out.
                    self._retry_at = time.monotonic() + _OPEN_INTERVAL_S
                    self._reason = str(error)
                    raise
                except NewerSchema as error:
                    self._warn(str(error))
                    raise JobsUnavailable(str(error)) from None
                except (OSError, sqlite3.Error) as error:
                    self._warn(str(error))
                    if isinstance(error, OSError) and error.errno in NO_ROOM:
                        raise no_room() from None
                    raise JobsUnavailable(
                        "jobs: expected a state folder that can be written, got none: see --state"
                    ) from None
                self._warned = False
            return self._database

    async def run_with_database(
        self,
        function: Callable[Concatenate[Database, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `function(database, ...)` on a thread. Raises as the function and `database` do."""
        return await asyncio.to_thread(lambda: function(self.database(), *args, **kwargs))

    def wake(self) -> None:
        """Tell the job thread that a job was created or cancelled."""
        if self._thread is not None:
            self._thread.wake()

    def update_metrics(self) -> None:
        """Set the job gauges from the job thread's last count, without reading the disk."""
        self._metrics.jobs(self._by_status)

    def _build_context(self) -> JobContext | None:
        """Return the job thread's dependencies, or None before the first job or bundle."""
        if self._loop is None or not self._repository.is_loaded:
            return None
        if self._database is None and not self._store.exists():
            return None
        self._refresh_counts()
        return JobContext(
            state_dir=self.state_dir,
            database=self.database(),
            repository=self._repository,
            engine=self._engine,
            loop=self._loop,
            settings=self._settings,
            log=self._log,
            stopping=self._stopping,
            count_rows=self._count_rows,
            refresh_counts=self._refresh_counts,
            reason_of=self._store.reason_of,
        )

    def _stopping(self) -> bool:
        return self._health.draining or (self._thread is not None and self._thread.stopped)

    def _count_rows(self, model: str, scored: int, failed: int) -> None:
        """Add to the row metrics, on the event loop: only its thread may change them."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._metrics.job_rows, model, scored, failed)

    def _refresh_counts(self) -> None:
        self._by_status = count_by_status(self.database())

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._log.warning("jobs_unavailable", state=str(self.state_dir.folder), reason=reason)
