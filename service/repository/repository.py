"""The bundles of a folder `<repository>/<name>/<version>/`, loaded, reloaded and unloaded.

A model folder (`<version>/`) and a single bundle are served under the name of their folder, or
under `model_name`.

Names that start with "." and versions that are no positive integer are ignored: exports are built
in hidden folders. A version that cannot be loaded is refused; the others are served. A rollout says
which version of a bundle answers requests that name none.

Readers use one mapping, which is replaced as a whole, so they never see half of a change. A version
that is no longer in the mapping is freed when the last request that uses it ends.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hsoftmax.runtime.devices import Device
from hsoftmax.service.errors import (
    NotReady,
    RolloutInRepository,
    StartError,
    UnknownBundle,
)
from hsoftmax.service.logging import Log
from hsoftmax.service.suggestions import did_you_mean

from .directory import VersionDir, scan
from .loaded_bundle import LoadedBundle
from .rollout import STABLE, Rollout, resolve, rolled_back
from .rollouts import ROLLOUT, AcceptedRollouts, ActiveRollout, LocalRollouts, Rollouts
from .served_model import ServedModel, Versions, quote
from .version_loader import VersionLoader, VersionState

_MAX_COMPARED_NAMES = 256  # for a suggestion, a millisecond or two


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
        self._loader = VersionLoader(path, device=device, check_hashes=check_hashes, log=log)
        self._change_lock = threading.Lock()
        self._states: Mapping[str, VersionState] = {}
        self._unloaded = unloaded
        self._loaded: Mapping[str, ServedModel] | None = None
        self._rollout_lock = threading.Lock()  # never held while a bundle is loaded
        self._rollouts = Rollouts(state, LocalRollouts() if accepted is None else accepted, log)
        self._active: Mapping[str, ActiveRollout] = {}

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
            self._loader.trim()

    def reload(self, name: str) -> Mapping[str, str]:
        """Serve the current content of one bundle, even if it was unloaded or refused before.

        Returns:
            What of it is refused now, as in `refusals`.
        """
        with self._change_lock:
            self._unloaded -= {name}
            self._states = {
                key: state.without_refusal() if state.directory.name == name else state
                for key, state in self._states.items()
            }
            directories = [one for one in scan(self._path, self._model_name) if one.name == name]
            self._apply(directories, _without_bundle(self._states, name))
            self._loader.trim()
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
        """The requested version of a bundle, a number or an alias; by default the client's.

        Raises:
            NotReady: nothing is loaded yet.
            UnknownBundle, UnknownVersion: it is not served.
        """
        model = self._all().get(name)
        if model is None:
            raise self._unknown(name)
        return model.find(version, key)

    def versions(self, name: str) -> list[str]:
        """The served versions of a bundle, lowest first."""
        model = self._all().get(name)
        return [] if model is None else [str(version) for version in model.versions]

    def aliases(self, name: str) -> dict[str, str]:
        """The served version of each alias of a bundle."""
        model = self._all().get(name)
        return {} if model is None else model.aliases

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
        self._loader.trim()

    def _all(self) -> Mapping[str, ServedModel]:
        if self._loaded is None:
            raise NotReady("not ready: bundles are being loaded")
        return self._loaded

    def _unknown(self, name: str) -> UnknownBundle:
        refused = any(key.startswith(f"{name}/") for key in self._states)
        if name in self._unloaded:
            return UnknownBundle(f"bundle {quote(name)} was unloaded")
        if refused:
            return UnknownBundle(f"bundle {quote(name)} was refused")
        hint = did_you_mean(name, self.names()[:_MAX_COMPARED_NAMES])
        return UnknownBundle(f"bundle {quote(name)} is not served here{hint}")

    def _apply(
        self, directories: Iterable[VersionDir], unchanged: Mapping[str, VersionState]
    ) -> None:
        """Replace the states by `unchanged` and the states of these folders."""
        served = [one for one in directories if one.name not in self._unloaded]
        states = {
            **unchanged,
            **{one.key: self._loader.load(one, self._states.get(one.key)) for one in served},
        }
        self._loader.retire(self._states.values(), states.values())
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
            name: ServedModel(name, found[name], one.resolved)
            for name, one in active.items()
            if one.resolved is not None
        }

    def _folder(self, versions: Versions) -> Path | None:
        """Return the folder of a bundle's versions; None if one version alone is served."""
        path = next(iter(versions.values())).bundle.path
        return None if path == self._path else path.parent


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


def _by_name(states: Iterable[VersionState]) -> Mapping[str, Versions]:
    """The loaded versions of each bundle, lowest first."""
    loaded: dict[str, dict[int, LoadedBundle]] = {}
    for state in sorted(states, key=lambda state: state.directory.version):
        if state.loaded is not None:
            loaded.setdefault(state.directory.name, {})[state.directory.version] = state.loaded
    return loaded


def _without_bundle(states: Mapping[str, VersionState], name: str) -> dict[str, VersionState]:
    return {key: state for key, state in states.items() if state.directory.name != name}
