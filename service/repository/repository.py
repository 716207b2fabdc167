"""The bundles of a folder `<repository>/<name>/<version>/`, loaded, reloaded and unloaded.

A model folder (`<version>/`) and a single bundle are served under the name of their folder, or
under `model_name`.

Names that start with "." and versions that are no positive integer are ignored: exports are built
in hidden folders. A version that cannot be loaded is refused with one line in the log; the others
are served. If it replaces a served version, the old one stays served, unless its weights were
changed in place.

A rollout says which version of a bundle answers requests that name none.

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
from hsoftmax.service.errors import (
    NotReady,
    RolloutInRepository,
    StartError,
    UnknownBundle,
    UnknownVersion,
)
from hsoftmax.service.logging import Log
from hsoftmax.service.resources import trim_heap
from hsoftmax.service.suggestions import did_you_mean

from .directory import VERSION, VersionDir, scan, stat_version
from .loaded_bundle import LoadedBundle, load_bundle
from .rollout import STABLE, ResolvedRollout, Rollout, choose, resolve, rolled_back
from .rollouts import ROLLOUT, AcceptedRollouts, ActiveRollout, LocalRollouts, Rollouts

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


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The versions of a bundle that are served, and the rollout that chooses among them."""

    versions: Versions
    rollout: ResolvedRollout

    def default(self, name: str, key: bytes | None) -> int:
        """Return the version for a client's key; without one, for most requests."""
        shares = self.rollout.shares
        return choose(shares, name, key) if shares else max(self.versions)

    def number(self, version: str) -> int | None:
        """Return the version that a number or an alias stands for, or None."""
        return int(version) if VERSION.fullmatch(version) else self.rollout.aliases.get(version)


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
        state: Path | None = None,
        accepted: AcceptedRollouts | None = None,
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
        self._loaded: Mapping[str, ServedModel] | None = None
        self._rollout_lock = threading.Lock()  # never held while a bundle is loaded
        self._rollouts = Rollouts(state, LocalRollouts() if accepted is None else accepted, log)
        self._active: Mapping[str, ActiveRollout] = {}
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
    def refused_rollouts(self) -> Mapping[str, str]:
        """The reason of each bundle whose rollout is refused, by name."""
        active = self._active.items()
        return {name: one.refusal for name, one in active if one.refusal is not None}

    def refusals(self, name: str) -> Mapping[str, str]:
        """The refused versions of one bundle, as in `refused`, and its rollout."""
        versions = {key: why for key, why in self.refused.items() if key.startswith(f"{name}/")}
        rollout = self.refused_rollouts.get(name)
        return versions if rollout is None else {**versions, f"{name}/{ROLLOUT}": rollout}

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
            What of it is refused now, as in `refusals`.
        """
        with self._change_lock:
            self._unloaded -= {name}
            self._states = {
                key: _without_refusal(state, name) for key, state in self._states.items()
            }
            directories = [one for one in scan(self._path, self._model_name) if one.name == name]
            self._apply(directories, _without_bundle(self._states, name))
            self._trim()
        return self.refusals(name)

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

    def find(self, name: str, version: str | None = None, key: bytes | None = None) -> LoadedBundle:
        """The requested version of a bundle, a number or an alias.

        By default the one that the rollout has for the client with this key, or for most requests;
        without a rollout the highest.

        Raises:
            NotReady: nothing is loaded yet.
            UnknownBundle, UnknownVersion: it is not served.
        """
        model = self._all().get(name)
        if model is None:
            raise self._unknown(name)
        if version is None:
            return model.versions[model.default(name, key)]
        number = model.number(version)
        found = None if number is None else model.versions.get(number)
        if found is None:
            known = " or ".join(map(str, (*model.versions, *model.rollout.aliases)))
            raise UnknownVersion(f"{name}: expected version {known}, got {_quote(version)}")
        return found

    def versions(self, name: str) -> list[str]:
        """The served versions of a bundle, lowest first."""
        model = self._all().get(name)
        return [] if model is None else [str(version) for version in model.versions]

    def aliases(self, name: str) -> dict[str, str]:
        """The served version of each alias of a bundle."""
        model = self._all().get(name)
        aliases = {} if model is None else model.rollout.aliases
        return {alias: str(version) for alias, version in aliases.items()}

    def rollout(self, name: str) -> ActiveRollout:
        """The rollout of a bundle that is in the repository. Raises NotReady, UnknownBundle."""
        self._all()
        if name not in self._active:
            raise self._unknown(name)
        return self._active[name]

    def follow_rollouts(self, *, watch: bool = True) -> None:
        """Read the rollouts again; without `watch` only those of the state folder."""
        with self._rollout_lock:
            if self._loaded is not None:
                self._publish(self._states, watch=watch)

    def set_rollout(self, name: str, rollout: Rollout) -> ActiveRollout:
        """Store a rollout in the state folder and follow it.

        Raises:
            UnknownBundle, InvalidRollout: it cannot be followed.
            RolloutInRepository: the repository has one, which decides.
            NotReady: it cannot be stored.
        """
        with self._rollout_lock:
            return self._set_rollout(name, rollout)

    def roll_back(self, name: str, version: str | None = None) -> ActiveRollout:
        """Send all requests to one version, by default `stable`. Raises as `set_rollout`."""
        with self._rollout_lock:
            if self._loaded is not None:
                self._publish(self._states, watch=False)
            current = self.rollout(name).rollout
            return self._set_rollout(name, rolled_back(current, version or STABLE))

    def _set_rollout(self, name: str, rollout: Rollout) -> ActiveRollout:
        self._all()
        versions = _by_name(self._states.values()).get(name)
        if versions is None:
            raise self._unknown(name)
        if self._rollouts.in_repository(self._folder(versions)):
            raise RolloutInRepository(
                f"rollout: expected none in the repository, got {name}/{ROLLOUT}, which decides "
                "for all replicas: change that file"
            )
        resolve(rollout, versions)
        self._rollouts.write(name, rollout)
        self._publish(self._states)
        return self._active[name]

    def names(self) -> list[str]:
        """The names of the served bundles; empty while nothing is loaded."""
        return sorted(self._loaded or {})

    def __iter__(self) -> Iterator[LoadedBundle]:
        """Every served version of every bundle."""
        for model in (self._loaded or {}).values():
            yield from model.versions.values()

    def _withdraw(self, name: str) -> None:
        self._unloaded |= {name}
        if self._loaded is None:
            return
        self._apply([], _without_bundle(self._states, name))
        self._trim()

    def _all(self) -> Mapping[str, ServedModel]:
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
        with self._rollout_lock:
            self._publish(states)

    def _publish(self, states: Mapping[str, VersionState], *, watch: bool = True) -> None:
        """Serve these states as the rollouts say. The caller holds the lock of rollouts."""
        found = _by_name(states.values())
        active = {
            name: self._rollouts.follow(name, versions, self._folder(versions), watch=watch)
            for name, versions in found.items()
        }
        self._states, self._active = states, active
        self._loaded = {
            name: ServedModel(found[name], one.resolved)
            for name, one in active.items()
            if one.resolved is not None
        }

    def _folder(self, versions: Versions) -> Path | None:
        """Return the folder of a bundle's versions; None if one version alone is served."""
        path = next(iter(versions.values())).bundle.path
        return None if path == self._path else path.parent

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
