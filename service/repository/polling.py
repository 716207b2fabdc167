"""Looking at the repository again and again, so that new versions are served without being told.

Looking costs some file stats and works on any file system, network mounts and Kubernetes volumes
included, where notifications do not arrive.
"""

import asyncio
from collections.abc import Callable

from hsoftmax.service.logging import Log

from .daemon_thread import in_daemon_thread
from .repository import Repository

INTERVAL = 1.0  # seconds


async def watch(
    repository: Repository, log: Log, loaded: Callable[[], None], interval: float = INTERVAL
) -> None:
    """Follow the folder until cancelled; what cannot be read now may be later.

    `loaded` is called each time the folder could be read.
    """
    failing = False
    while True:
        await asyncio.sleep(interval)
        try:
            await in_daemon_thread(repository.load)
        except Exception:
            if not failing:  # once is enough
                log.exception("watch_failed")
            failing = True
        else:
            failing = False
            loaded()
