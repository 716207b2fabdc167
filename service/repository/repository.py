"""The bundles of a folder: `<repository>/<name>/<version>/`, and how they come and go.

Names starting with "." and versions that are no positive integer are not looked at: exports are
built in hidden folders. A bundle that cannot be trusted is refused with one line, and the others
are served; one that takes the place of a served version is refused with the old one going on.

Readers see one mapping, which is replaced whole: never half of a change. A version that has left it
lives until the last request that found it is done.
"""

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hsoftmax.bundle import BundleError
from hsoftmax.runtime.devices import Device
from hsoftmax.service.errors import NotReady, StartError, UnknownBundle, UnknownVersion
from hsoftmax.service.logging import Log
from hsoftmax.service.resources import trim_heap

from .directory import VERSION, VersionDir, look, look_at
from .loaded_bundle import LoadedBundle, load_bundle

Versions = Mapping[int, LoadedBundle]


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a find: served, refused, or refused while an older find is still served."""

    found: VersionDir
    served: LoadedBundle | None = None
    refusal: str | None = None


class Repository:
    """What is served. One thread at a time changes it; any may read."""

    def __init__(
        self,
        path: Path,
        *,
        device: Device,
        check_hashes: bool,
        log: Log,
        unloaded: frozenset[str] = frozenset(),
    ) -> None:
        if not path.is_dir():
            raise StartError(f"repository: expected a folder, got none at {path}")
        self.device = device
        self._path = path
        self._check_hashes = check_hashes
        self._log = log
        self._changing = threading.Lock()
        self._entries: Mapping[str, Entry] = {}
        self._unloaded = unloaded
        self._served: Mapping[str, Versions] | None = None
        self._leaving: list[weakref.ref[LoadedBundle]] = []

    @property
    def loaded(self) -> bool:
        return self._served is not None

    @property
    def unloaded(self) -> frozenset[str]:
        """The bundles that are not served although they might be there."""
        return self._unloaded

    @property
    def refused(self) -> Mapping[str, str]:
        """`<name>/<version>` of every find that is not served, and why."""
        entries = self._entries.items()
        return {key: entry.refusal for key, entry in entries if entry.refusal is not None}

    def load(self) -> None:
        """Serve what the folder holds now; log and remember what is refused.

        What has not changed since the last time, good or bad, is not opened again.
        """
        with self._changing:
            self._adopt(look(self._path), {})
            self._trim()

    def reload(self, name: str) -> Mapping[str, str]:
        """Serve what the folder holds of one bundle, even if it was unloaded or refused before.

        Returns:
            What was refused of it now, as in `refused`.
        """
        with self._changing:
            self._unloaded -= {name}
            self._entries = {key: _anew(e, name) for key, e in self._entries.items()}
            found = [one for one in look(self._path) if one.name == name]
            self._adopt(found, _without(self._entries, name))
            self._trim()
        return {key: why for key, why in self.refused.items() if key.startswith(f"{name}/")}

    def unload(self, name: str) -> None:
        """Serve the bundle no more, until it is reloaded. Raises UnknownBundle if it is not."""
        with self._changing:
            if name not in self.names():
                raise self._unknown(name)
            self._unloaded |= {name}
            self._adopt([], _without(self._entries, name))
            self._trim()

    def find(self, name: str, version: str | None = None) -> LoadedBundle:
        """The version asked for, or else the highest.

        Raises:
            NotReady: nothing is loaded yet.
            UnknownBundle, UnknownVersion: it is not served.
        """
        versions = self._all().get(name)
        if versions is None:
            raise self._unknown(name)
        if version is None:
            return versions[max(versions)]
        found = versions.get(int(version)) if VERSION.fullmatch(version) else None
        if found is None:
            raise UnknownVersion(
                f"{name}: expected version {' or '.join(map(str, versions))}, "
                f"got {_quoted(version)}"
            )
        return found

    def versions(self, name: str) -> list[str]:
        """The versions served of a bundle, lowest first."""
        return [str(version) for version in self._all().get(name, {})]

    def names(self) -> list[str]:
        """The bundles that are served; empty while nothing is loaded."""
        return sorted(self._served or {})

    def __iter__(self) -> Iterator[LoadedBundle]:
        """Every version of every bundle."""
        for versions in (self._served or {}).values():
            yield from versions.values()

    def _all(self) -> Mapping[str, Versions]:
        if self._served is None:
            raise NotReady("not ready: bundles are being loaded")
        return self._served

    def _unknown(self, name: str) -> UnknownBundle:
        refused = any(key.startswith(f"{name}/") for key in self._entries)
        why = "was refused" if refused else "is not served here"
        return UnknownBundle(
            f"bundle {_quoted(name)} {'was unloaded' if name in self._unloaded else why}"
        )

    def _adopt(self, found: Iterable[VersionDir], kept: Mapping[str, Entry]) -> None:
        """Make the finds, and what is kept of before, what there is."""
        wanted = [one for one in found if one.name not in self._unloaded]
        entries = {**kept, **{one.key: self._consider(one) for one in wanted}}
        self._let_go(entries)
        self._entries = entries
        self._served = _by_name(entries.values())

    def _consider(self, found: VersionDir) -> Entry:
        before = self._entries.get(found.key)
        if before is not None and before.found == found:
            return before
        try:
            served = self._open(found)
        except (BundleError, OSError) as error:
            reason = str(error) if isinstance(error, BundleError) else "it could not be read"
            told = {"model": found.name, "version": found.version, "reason": reason}
            self._log.error("bundle_refused", **told)
            old = None if before is None else before.served
            return Entry(found, old, reason.replace(f"{self._path}/", ""))
        self._log_served(served)
        return Entry(found, served)

    def _open(self, found: VersionDir) -> LoadedBundle:
        served = load_bundle(
            found.name,
            found.version,
            found.path,
            device=self.device,
            check_hashes=self._check_hashes,
        )
        # Else its digest might be of one bundle and its weights of another.
        if look_at(found.name, found.version, found.path) != found:
            raise BundleError(f"{found.path}: expected files at rest, got changes while reading")
        return served

    def _let_go(self, entries: Mapping[str, Entry]) -> None:
        staying = {id(entry.served) for entry in entries.values()}
        for entry in self._entries.values():
            if entry.served is not None and id(entry.served) not in staying:
                self._leaving.append(weakref.ref(entry.served))
                served = entry.served
                self._log.info("bundle_dropped", model=served.name, version=served.version)

    def _trim(self) -> None:
        """Give memory back once those that were let go are gone."""
        still = [reference for reference in self._leaving if reference() is not None]
        if len(still) < len(self._leaving):
            trim_heap()
        self._leaving = still

    def _log_served(self, served: LoadedBundle) -> None:
        self._log.info(
            "bundle_served",
            model=served.name,
            version=served.version,
            digest=served.manifest.digest,
            family=served.manifest.family,
            tasks=sorted(served.sessions),
            device=served.device.name,
        )


def _by_name(entries: Iterable[Entry]) -> Mapping[str, Versions]:
    """Each bundle's versions, lowest first."""
    served: dict[str, dict[int, LoadedBundle]] = {}
    for entry in sorted(entries, key=lambda entry: entry.found.version):
        if entry.served is not None:
            served.setdefault(entry.found.name, {})[entry.found.version] = entry.served
    return served


def _without(entries: Mapping[str, Entry], name: str) -> dict[str, Entry]:
    return {key: entry for key, entry in entries.items() if entry.found.name != name}


def _anew(entry: Entry, name: str) -> Entry:
    """The entry; but if it is of this bundle and was refused, one that no find is equal to."""
    if entry.found.name != name or entry.refusal is None:
        return entry
    return replace(entry, found=replace(entry.found, files=()))


def _quoted(text: str, longest: int = 60) -> str:
    return repr(text if len(text) <= longest else text[:longest] + "…")
