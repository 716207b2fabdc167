"""The bundles of a folder `<repository>/<name>/<version>/`, loaded, reloaded and unloaded.

A model folder (`<version>/`) and a single bundle are served under the name of their folder, or
under `model_name`.

Names that start with "." and versions that are no positive integer are ignored: exports are built
in hidden folders. A version that cannot be loaded is refused with one line in the log; the others
are served. If it replaces a served version, the old one stays served, unless its weights were
changed in place.

Readers use one mapping, which is replaced as a whole, so they never see half of a change. A version
that is no longer in the mapping is freed when the last request that uses it ends.
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
from hsoftmax.service.suggestions import did_you_mean

from .directory import VERSION, VersionDir, scan, stat_version
from .loaded_bundle import LoadedBundle, load_bundle

_MAX_COMPARED_NAMES = 256  # for a suggestion, a millisecond or two

Versions = Mapping[int, LoadedBundle]

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


class Repository:
    """The bundles that are served. One thread at a time changes it; any thread may read."""

    def __init__(
        self,
        path: Path,
        *,
        model_name: str | None = None,
        device: Device,
        check_hashes: bool,
        log: Log,
        unloaded: frozenset[str] = frozenset(),
    ) -> None:
        if not path.is_dir():
            raise StartError(f"repository: expected a folder, got none at {path}")
        if model_name is not None:
            _expect_one_model(path, model_name)
        self._model_name = model_name
        self.device = device
        self._path = path
        self._check_hashes = check_hashes
        self._log = log
        self._change_lock = threading.Lock()
        self._states: Mapping[str, VersionState] = {}
        self._unloaded = unloaded
        self._loaded: Mapping[str, Versions] | None = None
        self._retired: list[weakref.ref[LoadedBundle]] = []

    @property
    def is_loaded(self) -> bool:
        """True once the folder has been loaded."""
        return self._loaded is not None

    @property
    def refused(self) -> Mapping[str, str]:
        """`<name>/<version>` of every version that is refused, and the reason."""
        states = self._states.items()
        return {key: state.refusal for key, state in states if state.refusal is not None}

    @property
    def unloaded(self) -> list[str]:
        """The names of bundles that are not served until they are reloaded."""
        return sorted(self._unloaded)

    def load(self) -> None:
        """Serve the current content of the folder; log and remember each refused version.

        A version that has not changed since the last scan is not opened again, loaded or refused.
        """
        with self._change_lock:
            self._apply(scan(self._path, self._model_name), {})
            self._trim()

    def reload(self, name: str) -> Mapping[str, str]:
        """Serve the current content of one bundle, even if it was unloaded or refused before.

        Returns:
            Its versions that are refused now, as in `refused`.
        """
        with self._change_lock:
            self._unloaded -= {name}
            self._states = {
                key: _without_refusal(state, name) for key, state in self._states.items()
            }
            directories = [one for one in scan(self._path, self._model_name) if one.name == name]
            self._apply(directories, _without_bundle(self._states, name))
            self._trim()
        return {key: why for key, why in self.refused.items() if key.startswith(f"{name}/")}

    def unload(self, name: str) -> None:
        """Stop serving a bundle until `reload`. Raises UnknownBundle if it is not served."""
        with self._change_lock:
            if name not in self.names():
                raise self._unknown(name)
            self._withdraw(name)

    def withdraw(self, name: str) -> None:
        """Do not serve a bundle until `reload`, whether it is served now or not."""
        with self._change_lock:
            self._withdraw(name)

    def find(self, name: str, version: str | None = None) -> LoadedBundle:
        """The requested version of a bundle, by default the highest.

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
                f"{name}: expected version {' or '.join(map(str, versions))}, got {_quote(version)}"
            )
        return found

    def versions(self, name: str) -> list[str]:
        """The served versions of a bundle, lowest first."""
        return [str(version) for version in self._all().get(name, {})]

    def names(self) -> list[str]:
        """The names of the served bundles; empty while nothing is loaded."""
        return sorted(self._loaded or {})

    def __iter__(self) -> Iterator[LoadedBundle]:
        """Every served version of every bundle."""
        for versions in (self._loaded or {}).values():
            yield from versions.values()

    def _withdraw(self, name: str) -> None:
        self._unloaded |= {name}
        if self._loaded is None:
            return
        self._apply([], _without_bundle(self._states, name))
        self._trim()

    def _all(self) -> Mapping[str, Versions]:
        if self._loaded is None:
            raise NotReady("not ready: bundles are being loaded")
        return self._loaded

    def _unknown(self, name: str) -> UnknownBundle:
        refused = any(key.startswith(f"{name}/") for key in self._states)
        if name in self._unloaded:
            return UnknownBundle(f"bundle {_quote(name)} was unloaded")
        if refused:
            return UnknownBundle(f"bundle {_quote(name)} was refused")
        hint = did_you_mean(name, self.names()[:_MAX_COMPARED_NAMES])
        return UnknownBundle(f"bundle {_quote(name)} is not served here{hint}")

    def _apply(
        self, directories: Iterable[VersionDir], unchanged: Mapping[str, VersionState]
    ) -> None:
        """Replace the states by `unchanged` and the states of these folders."""
        served = [one for one in directories if one.name not in self._unloaded]
        states = {**unchanged, **{one.key: self._load_or_reuse(one) for one in served}}
        self._retire(states)
        self._states = states
        self._loaded = _by_name(states.values())

    def _load_or_reuse(self, directory: VersionDir) -> VersionState:
        """The state of a folder: the old one if no file has changed, else after loading it."""
        before = self._states.get(directory.key)
        if before is not None and before.directory == directory:
            return before if _is_intact(before) else replace(before, loaded=None)
        try:
            loaded = self._open(directory)
        except (BundleError, OSError) as error:
            reason = str(error) if isinstance(error, BundleError) else "it could not be read"
            fields = {"model": directory.name, "version": directory.version, "reason": reason}
            self._log.error("bundle_refused", **fields)
            old = before.loaded if before is not None and _is_intact(before) else None
            return VersionState(directory, old, reason.replace(f"{self._path}/", ""))
        self._log_served(loaded)
        return VersionState(directory, loaded)

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
            device=self.device,
            check_hashes=self._check_hashes,
        )
        # A change during loading could combine the digest of one bundle and the weights of another.
        if stat_version(directory.name, directory.version, directory.path) != directory:
            raise BundleError(
                f"{directory.path}: expected files at rest, got changes while reading"
            )
        return loaded

    def _retire(self, states: Mapping[str, VersionState]) -> None:
        """Log the bundles that are not in the new states, and keep weak references to them."""
        staying = {id(state.loaded) for state in states.values()}
        for state in self._states.values():
            loaded = state.loaded
            if loaded is not None and id(loaded) not in staying:
                self._retired.append(weakref.ref(loaded))
                self._log.info("bundle_dropped", model=loaded.name, version=loaded.version)

    def _trim(self) -> None:
        """Return free memory to the system once a retired bundle has been freed."""
        alive = [reference for reference in self._retired if reference() is not None]
        if len(alive) < len(self._retired):
            trim_heap()
        self._retired = alive

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
        if loaded.device.name != self.device.name:
            self._log.warning(
                "device_fallback",
                model=loaded.name,
                version=loaded.version,
                device=loaded.device.name,
                reason=loaded.device.fallback_reason,
            )


def _expect_one_model(path: Path, model_name: str) -> None:
    """Raise StartError if the folder has models by name, which one name cannot stand for.

    An empty folder may become a model.
    """
    names = sorted({one.name for one in scan(path, model_name)} - {model_name})
    if names:
        some = ", ".join(names[:3]) + (" and more" if names[3:] else "")
        raise StartError(
            f"model_name: expected a model folder or one bundle, got a repository of {some} at "
            f"{path}: leave the name out"
        )


def _is_intact(state: VersionState) -> bool:
    """False if the state's bundle is served from weights that were changed in place."""
    return state.loaded is None or state.loaded.is_intact


def _by_name(states: Iterable[VersionState]) -> Mapping[str, Versions]:
    """The loaded versions of each bundle, lowest first."""
    loaded: dict[str, dict[int, LoadedBundle]] = {}
    for state in sorted(states, key=lambda state: state.directory.version):
        if state.loaded is not None:
            loaded.setdefault(state.directory.name, {})[state.directory.version] = state.loaded
    return loaded


def _without_bundle(states: Mapping[str, VersionState], name: str) -> dict[str, VersionState]:
    return {key: state for key, state in states.items() if state.directory.name != name}


def _without_refusal(state: VersionState, name: str) -> VersionState:
    """The state; a refused one of this bundle gets no files, so that no scan equals it."""
    if state.directory.name != name or state.refusal is None:
        return state
    return replace(state, directory=replace(state.directory, files=()))


def _quote(text: str, longest: int = 60) -> str:
    return repr(text if len(text) <= longest else text[:longest] + "…")
