"""Loads the versions that a scan of the repository found, each once.

A version whose files have not changed is not opened again, loaded or refused. One that cannot be
loaded is refused with one line in the log. If it replaces a served version, the old one stays
served, unless its weights were changed in place.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hsoftmax.bundle import BundleError
from hsoftmax.runtime.devices import Device
from hsoftmax.service.logging import Log
from hsoftmax.service.resources import trim_heap

from .directory import VersionDir, stat_version
from .loaded_bundle import LoadedBundle, load_bundle

# Words of routes such as /v2/models/stats; a bundle of that name could not be addressed.
RESERVED_NAMES = frozenset({"repository", "stats"})


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version of the repository after the last scan.

    Attributes:
        directory: the version's folder, as it was scanned
        loaded: the bundle that is served; of an older scan if `refusal` is set
        refusal: the reason why this version's files are not served
    """

    directory: VersionDir
    loaded: LoadedBundle | None = None
    refusal: str | None = None

    @property
    def is_intact(self) -> bool:
        """False if the bundle is served from weights that were changed in place."""
        return self.loaded is None or self.loaded.is_intact

    def without_refusal(self) -> "VersionState":
        """The state; a refused one gets no files, so that no scan equals it."""
        if self.refusal is None:
            return self
        return replace(self, directory=replace(self.directory, files=()))


class VersionLoader:
    """Loads versions on one device, and returns the memory of those that are served no more."""

    def __init__(self, repository: Path, *, device: Device, check_hashes: bool, log: Log) -> None:
        self._repository = repository
        self._device = device
        self._check_hashes = check_hashes
        self._log = log
        self._retired: list[weakref.ref[LoadedBundle]] = []

    def load(self, directory: VersionDir, before: VersionState | None) -> VersionState:
        """Return the state of a folder: the old one if no file has changed, else a new one."""
        if before is not None and before.directory == directory:
            return before if before.is_intact else replace(before, loaded=None)
        try:
            loaded = self._open(directory)
        except (BundleError, OSError) as error:
            reason = str(error) if isinstance(error, BundleError) else "it could not be read"
            fields = {"model": directory.name, "version": directory.version, "reason": reason}
            self._log.error("bundle_refused", **fields)
            old = before.loaded if before is not None and before.is_intact else None
            return VersionState(directory, old, reason.replace(f"{self._repository}/", ""))
        self._log_served(loaded)
        return VersionState(directory, loaded)

    def retire(self, old: Iterable[VersionState], new: Iterable[VersionState]) -> None:
        """Log the bundles that are not in the new states, and keep weak references to them."""
        staying = {id(state.loaded) for state in new}
        for state in old:
            loaded = state.loaded
            if loaded is not None and id(loaded) not in staying:
                self._retired.append(weakref.ref(loaded))
                self._log.info("bundle_dropped", model=loaded.name, version=loaded.version)

    def trim(self) -> None:
        """Return free memory to the system once a retired bundle has been freed."""
        alive = [reference for reference in self._retired if reference() is not None]
        if len(alive) < len(self._retired):
            trim_heap()
        self._retired = alive

    def _open(self, directory: VersionDir) -> LoadedBundle:
        if directory.name in RESERVED_NAMES:
            raise BundleError(
                f"{directory.path}: expected another name than {directory.name}, which is a part "
                "of the service's own routes: rename the bundle"
            )
        loaded = load_bundle(
            directory.name,
            directory.version,
            directory.path,
            device=self._device,
            check_hashes=self._check_hashes,
        )
        # A change during loading could combine the digest of one bundle and the weights of another.
        if stat_version(directory.name, directory.version, directory.path) != directory:
            raise BundleError(
                f"{directory.path}: expected files at rest, got changes while reading"
            )
        return loaded

    def _log_served(self, loaded: LoadedBundle) -> None:
        self._log.info(
            "bundle_served",
            model=loaded.name,
            version=loaded.version,
            digest=loaded.manifest.digest,
            family=loaded.manifest.family,
            tasks=sorted(loaded.sessions),
            device=loaded.device.name,
            devices=loaded.devices,
        )
        if loaded.device.name != self._device.name:
            self._log.warning(
                "device_fallback",
                model=loaded.name,
                version=loaded.version,
                device=loaded.device.name,
                reason=loaded.device.fallback_reason,
            )
