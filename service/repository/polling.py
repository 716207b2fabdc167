"""Polls the repository, so that new versions are served without a request to reload.

A poll costs some file stats and works on any file system. Notifications do not arrive on network
mounts and Kubernetes volumes.
"""

import asyncio
from collections.abc import Callable

from hsoftmax.service.logging import Log

from .daemon_thread import in_daemon_thread
from .repository import Repository

POLL_INTERVAL_S = 1.0


async def poll(
    repository: Repository,
    log: Log,
    on_loaded: Callable[[], None],
    interval_s: float = POLL_INTERVAL_S,
) -> None:
    """Load the repository at each interval until cancelled; a failure is logged and tried again.

    `on_loaded` is called after each load.
    """
    failing = False
    while True:
        await asyncio.sleep(interval_s)
        try:
            await in_daemon_thread(repository.load)
        except Exception:
            if not failing:  # one line for each series of failures
                log.exception("watch_failed")
            failing = True
        else:
            failing = False
            on_loaded()
