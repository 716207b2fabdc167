"""The bundles of a folder: `<repository>/<name>/<version>/`, opened, checked and ready to run.

Names starting with "." and versions that are no positive integer are not looked at: exports are
built in hidden folders. A bundle that cannot be trusted is refused with one line, and the others
are served.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import bundle
from bundle import Bundle, BundleError, Manifest

from .errors import NotReady, StartError, UnknownBundle, UnknownTask, UnknownVersion
from .log import Log
from .sessions import Device, Session, open_sessions

_VERSION = re.compile(r"[1-9][0-9]{0,17}")

Versions = Mapping[int, "Served"]


@dataclass(frozen=True)
class Served:
    """One version of a bundle with its sessions and labels."""

    name: str
    version: str
    bundle: Bundle
    device: Device
    sessions: Mapping[str, Session]
    labels: tuple[str, ...] | None

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @cached_property
    def hidden_size(self) -> int:
        return self.manifest.hidden_size or 0

    @cached_property
    def num_targets(self) -> int:
        return self.manifest.num_targets or 0

    @property
    def providers(self) -> list[str]:
        """The execution providers that its sessions really got."""
        got = (session.runtime.get_providers() for session in self.sessions.values())
        return list(dict.fromkeys(provider for providers in got for provider in providers))

    @cached_property
    def target_of_label(self) -> Mapping[str, int]:
        return {label: target for target, label in enumerate(self.labels or ())}

    def session(self, task: str) -> Session:
        """The task's session. Raises UnknownTask if the bundle does not have it."""
        try:
            return self.sessions[task]
        except KeyError:
            raise UnknownTask(
                f"{self.name} version {self.version} has no task {task}: "
                f"it has {', '.join(sorted(self.sessions)) or 'none'}"
            ) from None


class Repository:
    """What is served: replaced whole by `load`, so that a reader never sees half of it."""

    def __init__(self, path: Path, *, device: Device, check_hashes: bool, log: Log) -> None:
        if not path.is_dir():
            raise StartError(f"repository: expected a folder, got none at {path}")
        self.device = device
        self._path = path
        self._check_hashes = check_hashes
        self._log = log
        self._served: Mapping[str, Versions] | None = None
        self._refused: Mapping[str, str] = {}

    @property
    def loaded(self) -> bool:
        return self._served is not None

    @property
    def refused(self) -> Mapping[str, str]:
        """`<name>/<version>` of every bundle that is not served, and why."""
        return self._refused

    def load(self) -> None:
        """Open every bundle; log and remember those that are refused."""
        served: dict[str, dict[int, Served]] = {}
        refused: dict[str, str] = {}
        for name, version, path in _versions(self._path):
            try:
                opened = self._open(name, version, path)
            except BundleError as error:
                refused[f"{name}/{version}"] = str(error).replace(f"{self._path}/", "")
                self._log.error("bundle_refused", model=name, version=version, reason=str(error))
            else:
                served.setdefault(name, {})[version] = opened
                self._log_served(opened)
        self._refused = refused
        self._served = served

    def find(self, name: str, version: str | None = None) -> Served:
        """The version asked for, or else the highest.

        Raises:
            NotReady: nothing is loaded yet.
            UnknownBundle, UnknownVersion: it is not served.
        """
        versions = self._all().get(name)
        if versions is None:
            refused = any(bad.startswith(f"{name}/") for bad in self._refused)
            why = "was refused when the service started" if refused else "is not served here"
            raise UnknownBundle(f"bundle {_quoted(name)} {why}")
        if version is None:
            return versions[max(versions)]
        found = versions.get(int(version)) if _VERSION.fullmatch(version) else None
        if found is None:
            raise UnknownVersion(
                f"{name}: expected version {' or '.join(self.versions(name))}, "
                f"got {_quoted(version)}"
            )
        return found

    def versions(self, name: str) -> list[str]:
        """The versions served of a bundle, lowest first."""
        return [str(version) for version in sorted(self._all().get(name, {}))]

    def names(self) -> list[str]:
        """The bundles that are served; empty while nothing is loaded."""
        return sorted(self._served or {})

    def __iter__(self) -> Iterator[Served]:
        """Every version of every bundle."""
        for versions in (self._served or {}).values():
            yield from versions.values()

    def _all(self) -> Mapping[str, Versions]:
        if self._served is None:
            raise NotReady("not ready: bundles are being loaded")
        return self._served

    def _open(self, name: str, version: int, path: Path) -> Served:
        opened = bundle.open_bundle(path)
        if self._check_hashes:
            bundle.check_hashes(opened)
        labels = bundle.read_labels(opened)
        sessions = open_sessions(opened, self.device)
        return Served(name, str(version), opened, self.device, sessions, labels)

    def _log_served(self, served: Served) -> None:
        self._log.info(
            "bundle_served",
            model=served.name,
            version=served.version,
            digest=served.manifest.digest,
            family=served.manifest.family,
            tasks=sorted(served.sessions),
            device=served.device.name,
        )


def _versions(repository: Path) -> Iterator[tuple[str, int, Path]]:
    """Every (name, version, folder), in order."""
    for folder in sorted(repository.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        numbers = [int(p.name) for p in folder.iterdir() if _VERSION.fullmatch(p.name)]
        for version in sorted(numbers):
            yield folder.name, version, folder / str(version)


def _quoted(text: str, longest: int = 60) -> str:
    return repr(text if len(text) <= longest else text[:longest] + "…")
