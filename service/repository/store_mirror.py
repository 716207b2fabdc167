"""Mirrors the store of the settings into a local folder, which the repository polls as any other.

Of all workers, and all services that share the cache, the one with the lock downloads. If its
process ends, another one takes over. A store that cannot be read changes nothing in the folder, so
all that is served stays served.
"""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hsoftmax.service.errors import StartError
from hsoftmax.service.logging import Log
from hsoftmax.service.metrics import Metrics
from hsoftmax.service.settings import Settings
from hsoftmax.stores.cache import Cache
from hsoftmax.stores.errors import StoreError, StoreUnavailable
from hsoftmax.stores.url import StoreUrl

from .daemon_thread import in_daemon_thread

if TYPE_CHECKING:
    from hsoftmax.stores.mirror import Mirror, Pass

_FOLLOW_INTERVAL_S = 0.5  # between two looks of a process that waits for the first download


class ReportsFailure(Protocol):
    """The health of the process: its failure is the reason why it is not ready."""

    failure: str | None


class StoreMirror:
    """The mirror of one process. The app runs `prepare`, then `keep` in the background."""

    def __init__(
        self, mirror: "Mirror", cache: Cache, interval_s: float, log: Log, metrics: Metrics
    ) -> None:
        self.cache = cache
        self._mirror = mirror
        self._interval_s = interval_s
        self._log = log
        self._metrics = metrics
        self._lock: int | None = None
        self._failure: str | None = None
        self._was_empty = False
        self._skipped: list[str] = []

    async def prepare(self, health: ReportsFailure, *, refresh: bool) -> None:
        """Return once the cache has what the store had, now or before; with `refresh` now."""
        if refresh:
            await self._sync()
        next_at = 0.0
        clock = asyncio.get_running_loop().time
        while not self.cache.is_synced:
            if clock() >= next_at:
                await self._sync()
                next_at = clock() + self._interval_s
                health.failure = None if self._failure is None else "the store cannot be read"
            if not self.cache.is_synced:
                await asyncio.sleep(min(self._interval_s, _FOLLOW_INTERVAL_S))
        health.failure = None

    async def keep(self) -> None:
        """Mirror the store at each interval until cancelled."""
        while True:
            await self._sync()
            await asyncio.sleep(self._interval_s)

    def close(self) -> None:
        """Release the lock, so that another process can download."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _sync(self) -> None:
        """Mirror the store once if this process has the lock. A failure is logged, not raised."""
        if self._lock is None:
            self._lock = self.cache.lock()
        if self._lock is None:
            return
        before = self._mirror.downloaded
        try:
            done = await in_daemon_thread(self._mirror.run)
        except (StoreError, OSError) as error:
            self._failed(str(error) if isinstance(error, StoreError) else "it cannot be mirrored")
        except Exception:
            self._log.exception("store_failed")
            self._failure = "it cannot be mirrored"
        else:
            self._succeeded(done)
        self._metrics.store(
            up=self._failure is None,
            refused=len(self._mirror.failures),
            downloaded_bytes=self._mirror.downloaded - before,
        )

    def _failed(self, reason: str) -> None:
        if self._failure is None:  # one line for each series of failures
            self._log.error("store_failed", reason=reason)
        self._failure = reason

    def _succeeded(self, done: "Pass") -> None:
        if self._failure is not None:
            self._log.info("store_recovered")
        self._failure = None
        for key, reason in done.refused.items():
            name, _, last = key.partition("/")
            if last.isdigit():
                self._log.error("store_version_refused", model=name, version=last, reason=reason)
            else:
                self._log.error("store_file_refused", model=name, file=last, reason=reason)
        if done.skipped != self._skipped:
            self._log.warning("store_cache_full", skipped=done.skipped)
        self._skipped = done.skipped
        if done.added or done.removed or done.evicted:
            changes = {"added": done.added, "removed": done.removed}
            self._log.info("store_mirrored", **changes, evicted=len(done.evicted))
        is_empty = not self.cache.linked() and not self._mirror.failures
        if is_empty and not self._was_empty:
            self._log.warning(
                "store_empty", reason="expected <name>/<version>/bundle.json in the store, got none"
            )
        self._was_empty = is_empty


def open_mirror(settings: Settings, log: Log, metrics: Metrics) -> StoreMirror | None:
    """Return the mirror of the store, or None if the repository is a local folder.

    Raises:
        StartError: the store refuses to be read, or there is none, and nothing was downloaded
            before; or the cache cannot be written.
    """
    url = settings.repository
    if isinstance(url, Path):
        return None
    try:
        from hsoftmax.stores.mirror import Mirror
        from hsoftmax.stores.objects import ObjectStore
        from hsoftmax.stores.versions import list_versions
    except ModuleNotFoundError as error:
        raise StartError(
            f"repository: {url.scheme}:// needs the package {error.name}, which is not installed: "
            "pip install '.[stores]'"
        ) from None
    cache = Cache(cache_dir(settings, url))
    try:
        cache.make()
        if not cache.is_synced:
            list_versions(ObjectStore(url, is_patient=False))
        store = ObjectStore(url)
    except StoreUnavailable:
        store = ObjectStore(url)  # it may answer later: the service waits for it
    except StoreError as error:
        raise StartError(f"repository: {error}") from None
    mirror = Mirror(store, cache, settings.store_cache_size)
    return StoreMirror(mirror, cache, settings.store_interval, log, metrics)


def cache_dir(settings: Settings, url: StoreUrl) -> Path:
    """Return the cache of the settings; else one in the state folder or under XDG_CACHE_HOME."""
    if settings.store_cache is not None:
        return settings.store_cache
    name = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    if isinstance(settings.state, Path):
        return settings.state / "store-cache" / name
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path("~/.cache").expanduser()
    return base / "hsoftmax" / name
