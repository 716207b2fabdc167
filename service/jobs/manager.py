"""Files and jobs of one app: nothing is on the disk before somebody wants something of them."""

import asyncio
import sqlite3
import threading
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

from .batch_store import count_by_status
from .database import Database
from .job_context import JobContext
from .job_thread import Runner
from .state_dir import StateDir, is_writable, place_of

_PATIENCE = 10.0  # seconds for the piece that runs

P = ParamSpec("P")
T = TypeVar("T")


class Jobs:
    """Started and stopped with the app."""

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        engine: Engine,
        health: Health,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self.place: StateDir = place_of(settings)
        self._settings = settings
        self._repository = repository
        self._engine = engine
        self._health = health
        self._metrics = metrics
        self._log = log
        self._opening = threading.Lock()
        self._database: Database | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: Runner | None = None
        self._by_status: Mapping[str, int] = {}
        self._warned = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take up what was left; calls of graphs go through this loop."""
        self._loop = loop
        if not is_writable(self.place):
            self._warn("the folder cannot be written")
        self._runner = Runner(self._shop)

    def stop(self) -> None:
        """Let go of everything; no job is lost."""
        if self._runner is not None:
            self._runner.stop(_PATIENCE)
        with self._opening:
            if self._database is not None:
                self._database.close()
                self._database = None

    def database(self) -> Database:
        """Made when it is first needed. Raises JobsUnavailable where it cannot be."""
        with self._opening:
            if self._database is None:
                try:
                    self.place.make()
                    self._database = Database(self.place.database)
                except NewerSchema as error:
                    self._warn(str(error))
                    raise JobsUnavailable(str(error)) from None
                except (OSError, sqlite3.Error) as error:
                    self._warn(str(error))
                    raise JobsUnavailable(
                        "jobs: expected a state folder that can be written, got none: see --state"
                    ) from None
            return self._database

    async def ask(
        self,
        function: Callable[Concatenate[Database, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What the function says of the database, on a thread. Raises as it and `database` do."""
        return await asyncio.to_thread(lambda: function(self.database(), *args, **kwargs))

    def wake(self) -> None:
        """There is a new job, or one less."""
        if self._runner is not None:
            self._runner.wake()

    def count(self) -> None:
        """Say to the metrics how many jobs there were half a second ago; waits for no disk."""
        self._metrics.jobs(self._by_status)

    def _shop(self) -> JobContext | None:
        """None until there is a state, and bundles to score with."""
        if self._loop is None or not self._repository.is_loaded:
            return None
        if self._database is None and not self.place.database.exists():
            return None
        self._recount()
        return JobContext(
            place=self.place,
            database=self.database(),
            repository=self._repository,
            engine=self._engine,
            loop=self._loop,
            settings=self._settings,
            log=self._log,
            stopping=self._stopping,
            count=self._count,
            recount=self._recount,
        )

    def _stopping(self) -> bool:
        return self._health.draining or (self._runner is not None and self._runner.stopped)

    def _count(self, model: str, scored: int, failed: int) -> None:
        """Metrics are the event loop's own."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._metrics.job_rows, model, scored, failed)

    def _recount(self) -> None:
        self._by_status = count_by_status(self.database())

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._log.warning("jobs_unavailable", state=str(self.place.folder), reason=reason)
