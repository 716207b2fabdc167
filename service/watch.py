"""Looking at the repository again and again, so that new versions are served without being told.

Looking costs some file stats and works on any file system, network mounts and Kubernetes volumes
included, where notifications do not arrive.
"""

import asyncio

from .core import Core

INTERVAL = 1.0  # seconds


async def watch(core: Core, interval: float = INTERVAL) -> None:
    """Follow the folder until cancelled; what cannot be read now may be later."""
    failing = False
    while True:
        await asyncio.sleep(interval)
        try:
            await asyncio.to_thread(core.repository.load)
        except Exception:
            if not failing:  # once is enough
                core.log.exception("watch_failed")
            failing = True
        else:
            failing = False
            core.health.failure = None
