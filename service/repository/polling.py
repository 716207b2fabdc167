"""Polls the repository, so that new versions and rollouts are followed without a request.

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
    await _repeat(repository.load, "watch_failed", log, on_loaded, interval_s)


async def poll_rollouts(
    repository: Repository, log: Log, *, watch: bool, interval_s: float = POLL_INTERVAL_S
) -> None:
    """Read the rollouts at each interval until cancelled: also while a large bundle is loaded."""

    def follow_rollouts() -> None:
        repository.follow_rollouts(watch=watch)

    await _repeat(follow_rollouts, "rollouts_failed", log, lambda: None, interval_s)


async def _repeat(
    function: Callable[[], None],
    failure_event: str,
    log: Log,
    on_success: Callable[[], None],
    interval_s: float,
) -> None:
    failing = False
    while True:
        await asyncio.sleep(interval_s)
        try:
            await in_daemon_thread(function)
        except Exception:
            if not failing:  # one line for each series of failures
                log.exception(failure_event)
            failing = True
        else:
            failing = False
            on_success()
