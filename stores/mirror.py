"""Mirrors a store into a local cache, one pass at a time. The service calls it at an interval.

A version that is wrong or cannot be read is left out with one sentence, and the version that was
there before stays. It is tried again when it changes, and otherwise ever more seldom.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial

from .cache import Cache
from .download import expect_room, fetch_files, fetch_manifest
from .errors import StoreError, StoreUnavailable
from .objects import ObjectStore, StoredObject
from .versions import StoredVersion, list_versions

_FIRST_PAUSE_S = 5.0
_MAX_PAUSE_S = 300.0
_MAX_EXTRA_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Failure:
    """A version, or a small file beside the versions, that cannot be mirrored now.

    Attributes:
        tried: the version or file as it was in the store
        again_at: monotonic time of the next attempt
    """

    tried: StoredVersion | StoredObject
    reason: str
    pause: float
    again_at: float
    passing: bool


@dataclass(slots=True)
class Pass:
    """The result of one pass.

    Attributes:
        added, removed: `<name>/<version>`
        refused: the reason of each version or small file that is new among the failures
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
        failures: by `<name>/<version>` or `<name>/<file>`, those of the last pass
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
        self._pending: set[str] = set()  # digests that the pass is about to make visible
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
        extras = dict(listing.extras)
        for name in sorted({key.partition("/")[0] for key in (*keys, *extras)}):
            self._update_model(
                [one for one in chosen if one.name == name],
                {key: one for key, one in extras.items() if key.startswith(f"{name}/")},
                done,
            )
        self._remove(keys, extras.keys(), done)
        known = keys | extras.keys()
        self.failures = {key: one for key, one in self.failures.items() if key in known}
        if self.is_complete:
            self._cache.mark_synced()
        return done

    def _update_model(
        self, versions: list[StoredVersion], extras: dict[str, StoredObject], done: Pass
    ) -> None:
        """Download the content of new versions, then the small files, then make versions visible.

        So a rollout that keeps a new version out is there before that version is.
        """
        self._pending.clear()
        fetched = {}
        for version in versions:
            if self._mirrored.get(version.key) != version:
                digest = self._try(version.key, version, done, partial(self._fetch, version, done))
                if digest is not None:
                    fetched[version] = digest
        for key, extra in extras.items():
            if self._extras.get(key) != extra:
                self._try(key, extra, done, partial(self._fetch_extra, key, extra))
        if any(self._extras.get(key) != extra for key, extra in extras.items()):
            return
        for version, digest in fetched.items():
            self._link(version, digest, done)

    def _try(
        self,
        key: str,
        tried: StoredVersion | StoredObject,
        done: Pass,
        fetch: Callable[[], str],
    ) -> str | None:
        """Return the result of a download, or None if it fails or its next attempt is later."""
        failed = self.failures.get(key)
        if failed and failed.tried == tried and self._clock() < failed.again_at:
            return None
        try:
            result = fetch()
        except (StoreError, OSError) as error:
            self._fail(key, tried, error, done)
            return None
        self.failures.pop(key, None)
        return result

    def _fetch(self, version: StoredVersion, done: Pass) -> str:
        """Download the content of a version unless the cache has it, and return its digest."""
        incoming = self._cache.staging("manifest")
        manifest = fetch_manifest(self._store, version, incoming)
        if not self._cache.content(manifest.digest).is_dir():
            needed = sum(file.size for file in manifest.files.values())
            done.evicted += self._cache.evict(self._max_bytes - needed, self._pending)
            expect_room(self._cache.folder, needed)
            staging = self._cache.staging(manifest.digest)
            staging.mkdir(exist_ok=True)
            (incoming / "bundle.json").replace(staging / "bundle.json")
            fetch_files(self._store, version, manifest, staging, self._count)
            staging.rename(self._cache.content(manifest.digest))
        self._pending.add(manifest.digest)
        return manifest.digest

    def _fetch_extra(self, key: str, extra: StoredObject) -> str:
        """Mirror a small file beside the versions, such as the rollout; return its mark."""
        self._cache.write_extra(key, self._store.read(extra.path, _MAX_EXTRA_BYTES))
        self._extras[key] = extra
        return extra.tag

    def _link(self, version: StoredVersion, digest: str, done: Pass) -> None:
        if self._cache.linked().get(version.key) != digest:
            self._cache.link(version.key, digest)
            done.added.append(version.key)
        self._mirrored[version.key] = version

    def _remove(self, keys: Collection[str], extras: Collection[str], done: Pass) -> None:
        """Remove versions and small files that the store has no more."""
        for key in set(self._cache.extras()) - set(extras):
            self._cache.remove_extra(key)
            self._extras.pop(key, None)
        for key in self._cache.linked().keys() - set(keys):
            self._cache.unlink(key)
            self._mirrored.pop(key, None)
            done.removed.append(key)

    def _fail(
        self, key: str, tried: StoredVersion | StoredObject, error: Exception, done: Pass
    ) -> None:
        failed = self.failures.get(key)
        if isinstance(error, StoreError):
            reason = str(error)
        else:
            reason = f"store cache: it cannot be written: {getattr(error, 'strerror', 'failed')}"
        again = failed is not None and failed.tried == tried
        pause = min(_MAX_PAUSE_S, 2 * failed.pause) if failed and again else _FIRST_PAUSE_S
        passing = isinstance(error, StoreUnavailable)
        until = self._clock() + pause
        self.failures[key] = Failure(tried, reason, pause, until, passing)
        if failed is None or not again or failed.reason != reason:
            done.refused[key] = reason

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
