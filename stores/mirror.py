"""Mirrors a store into a local cache, one pass at a time. The service calls it at an interval.

A version that is wrong or cannot be read is left out with one sentence, and the version that was
there before stays. It is tried again when it changes, and otherwise ever more seldom.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .cache import Cache
from .download import expect_room, fetch_files, fetch_manifest
from .errors import StoreError, StoreUnavailable
from .objects import ObjectStore, StoredObject
from .versions import Listing, StoredVersion, list_versions

_FIRST_PAUSE_S = 5.0
_MAX_PAUSE_S = 300.0
_MAX_EXTRA_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that cannot be mirrored now.

    Attributes:
        tried: the version as it was in the store
        again_at: monotonic time of the next attempt
    """

    tried: StoredVersion
    reason: str
    pause: float
    again_at: float
    passing: bool


@dataclass(slots=True)
class Pass:
    """The result of one pass.

    Attributes:
        added, removed: `<name>/<version>`
        refused: the reason of each version that is new among the failures
        skipped: versions that the cache has no room for
    """

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)


class Mirror:
    """Keeps a cache equal to a store. One thread at a time calls it.

    Attributes:
        failures: by `<name>/<version>`, those of the last pass
        downloaded: bytes since the start
    """

    def __init__(
        self,
        store: ObjectStore,
        cache: Cache,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cache = cache
        self._max_bytes = max_bytes
        self._clock = clock
        self._mirrored: dict[str, StoredVersion] = {}
        self._extras: dict[str, StoredObject] = {}
        self.failures: dict[str, Failure] = {}
        self.downloaded = 0

    @property
    def is_complete(self) -> bool:
        """True unless nothing could be mirrored for a reason that may pass."""
        passing = any(one.passing for one in self.failures.values())
        return bool(self._mirrored) or not passing

    def run(self) -> Pass:
        """Read the store once.

        Raises:
            StoreError: it cannot be listed, or has no bundle any more. A missing prefix of a bucket
                is an empty list, too, so all that is served stays.
        """
        listing = list_versions(self._store)
        if not listing.versions and self._cache.linked():
            raise StoreError(
                f"{self._store.url}: expected bundles, got none: those of before stay served"
            )
        done = Pass(evicted=self._cache.evict(self._max_bytes))
        chosen = choose(listing.versions, self._max_bytes)
        keys = {one.key for one in chosen}
        done.skipped = [one.key for one in listing.versions if one.key not in keys]
        for version in chosen:
            self._update(version, done)
        for key in self._cache.linked().keys() - keys:
            self._cache.unlink(key)
            self._mirrored.pop(key, None)
            done.removed.append(key)
        self.failures = {key: one for key, one in self.failures.items() if key in keys}
        self._update_extras(listing)
        if self.is_complete:
            self._cache.mark_synced()
        return done

    def _update(self, version: StoredVersion, done: Pass) -> None:
        if self._mirrored.get(version.key) == version:
            return
        failed = self.failures.get(version.key)
        if failed and failed.tried == version and self._clock() < failed.again_at:
            return
        try:
            self._fetch(version, done)
        except (StoreError, OSError) as error:
            self._fail(version, failed, error, done)
            return
        self._mirrored[version.key] = version
        self.failures.pop(version.key, None)

    def _fetch(self, version: StoredVersion, done: Pass) -> None:
        """Download the content unless the cache has it, then make it that of the version."""
        incoming = self._cache.staging("manifest")
        manifest = fetch_manifest(self._store, version, incoming)
        if not self._cache.content(manifest.digest).is_dir():
            needed = sum(file.size for file in manifest.files.values())
            done.evicted += self._cache.evict(self._max_bytes - needed)
            expect_room(self._cache.folder, needed)
            staging = self._cache.staging(manifest.digest)
            staging.mkdir(exist_ok=True)
            (incoming / "bundle.json").replace(staging / "bundle.json")
            fetch_files(self._store, version, manifest, staging, self._count)
            staging.rename(self._cache.content(manifest.digest))
        if self._cache.linked().get(version.key) != manifest.digest:
            self._cache.link(version.key, manifest.digest)
            done.added.append(version.key)

    def _fail(
        self, version: StoredVersion, failed: Failure | None, error: Exception, done: Pass
    ) -> None:
        if isinstance(error, StoreError):
            reason = str(error)
        else:
            reason = f"store cache: it cannot be written: {getattr(error, 'strerror', 'failed')}"
        again = failed is not None and failed.tried == version
        pause = min(_MAX_PAUSE_S, 2 * failed.pause) if failed and again else _FIRST_PAUSE_S
        passing = isinstance(error, StoreUnavailable)
        until = self._clock() + pause
        self.failures[version.key] = Failure(version, reason, pause, until, passing)
        if failed is None or not again or failed.reason != reason:
            done.refused[version.key] = reason

    def _update_extras(self, listing: Listing) -> None:
        """Mirror the small files beside the versions, such as those about all of them."""
        wanted = dict(listing.extras)
        for key, one in wanted.items():
            if self._extras.get(key) != one:
                self._cache.write_extra(key, self._store.read(one.path, _MAX_EXTRA_BYTES))
                self._extras[key] = one
        for key in set(self._cache.extras()) - wanted.keys():
            self._cache.remove_extra(key)
            self._extras.pop(key, None)

    def _count(self, num_bytes: int) -> None:
        self.downloaded += num_bytes


def choose(versions: Iterable[StoredVersion], max_bytes: int) -> list[StoredVersion]:
    """The versions to mirror: the newest of each model, then older ones while there is room."""
    ranks: dict[str, int] = {}
    ranked = []
    for version in sorted(versions, key=lambda one: -one.version):
        rank = ranks[version.name] = ranks.get(version.name, -1) + 1
        ranked.append((rank, version))
    chosen, total = [], 0
    for rank, version in sorted(ranked, key=lambda pair: (pair[0], pair[1].name)):
        if rank == 0 or total + version.size <= max_bytes:
            chosen.append(version)
            total += version.size
    return chosen
