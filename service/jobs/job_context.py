"""What carrying out jobs needs, once there is anything to carry out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hsoftmax.service.engine import Engine
from hsoftmax.service.logging import Log
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings

from .database import Database
from .state_dir import StateDir


@dataclass(frozen=True)
class JobContext:
    """Where jobs are done.

    Attributes:
        stopping: whether this process is about to end
        count: called with the rows of a bundle that were scored, and those that failed
        recount: counts the jobs that there are
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
