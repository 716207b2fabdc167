"""Dependencies of the job thread. `JobManager` creates them when the first job arrives."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hsoftmax.service.engine import Engine
from hsoftmax.service.errors import JobsUnavailable
from hsoftmax.service.logging import Log
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings

from .database import Database
from .state_dir import StateDir


@dataclass(frozen=True)
class JobContext:
    """The services and settings that a job needs, passed to every step of it.

    Attributes:
        loop: event loop on which the engine runs
        stopping: returns True when this process is about to end
        count_rows: adds to the row metrics; takes the bundle's name, scored rows and failed rows
        refresh_counts: counts the jobs by status for the metrics
        reason_of: returns the cause of an error of the database for the log, without credentials
        lost: returns True when another process may have taken the job
    """

    state_dir: StateDir
    database: Database
    repository: Repository
    engine: Engine
    loop: asyncio.AbstractEventLoop
    settings: Settings
    log: Log
    stopping: Callable[[], bool]
    count_rows: Callable[[str, int, int], None]
    refresh_counts: Callable[[], None]
    reason_of: Callable[[JobsUnavailable], str]
    lost: Callable[[], bool] = lambda: False
