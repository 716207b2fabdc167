"""The rollouts of all models, read from their files and checked against the served versions.

`rollout.json` in a model's folder of the repository decides, as all replicas read it. Without it
the rollout in the state folder does, which the routes for operators write. A rollout that is wrong
is refused with one line in the log, and the one before goes on. `Repository` calls this module.
"""

import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from hsoftmax.bundle import NotRegularFile, expect_regular
from hsoftmax.service.errors import InvalidRollout, NotReady, ServiceError
from hsoftmax.service.logging import Log

from .rollout import ResolvedRollout, Rollout, parse_rollout, resolve, resolve_served

ROLLOUT = "rollout.json"  # in the model's folder
_MAX_BYTES = 2**16

Source = Literal["repository", "state", "none"]
FileState = tuple[int, int, int]  # inode, size and modification time


class AcceptedRollouts(Protocol):
    """The last rollout of each model that was accepted, as JSON; workers share it."""

    def find(self, name: str) -> bytes | None: ...

    def put(self, name: str, rollout: bytes) -> None: ...


class LocalRollouts(dict[str, bytes]):
    """The accepted rollouts of a service with one process."""

    def find(self, name: str) -> bytes | None:
        return self.get(name)

    def put(self, name: str, rollout: bytes) -> None:
        self[name] = rollout


@dataclass(frozen=True, slots=True)
class ActiveRollout:
    """The rollout of one model that is followed.

    Attributes:
        source: the file that decides; its content may be refused, then an earlier one is followed
        resolved: with versions in place of names; None if no version can answer
        refusal: the reason why the file is not followed, or not all of it
    """

    rollout: Rollout
    source: Source
    resolved: ResolvedRollout | None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class _File:
    state: FileState
    content: bytes
    refusal: str | None = None


class Rollouts:
    """Reads the files of rollouts. One thread at a time calls it."""

    def __init__(self, state: Path | None, accepted: AcceptedRollouts, log: Log) -> None:
        self._state = state
        self._accepted = accepted
        self._log = log
        self._files: dict[Path, _File] = {}
        self._followed: dict[str, ActiveRollout] = {}

    def follow(
        self, name: str, served: Collection[int], folder: Path | None, *, watch: bool = True
    ) -> ActiveRollout:
        """Return a model's rollout. `folder` is None if its version is served alone.

        Without `watch` the file of the repository counts as it was read before.
        """
        file, source = self._find(name, folder, watch)
        known = self._followed.get(name)
        active = _activate(file, source, served, self._before(name))
        if known != active:
            self._followed[name] = active
            self._note(name, active, known)
        return active

    def in_repository(self, folder: Path | None) -> bool:
        """True if the repository has a rollout for the model of this folder."""
        return folder is not None and self._read(folder / ROLLOUT) is not None

    def write(self, name: str, rollout: Rollout) -> None:
        """Replace the rollout in the state folder; an empty one is removed.

        Raises:
            NotReady: the folder cannot be written.
        """
        if self._state is None:
            raise NotReady("rollout: expected a state folder, got none: see --state")
        try:
            _replace(self._state / f"{name}.json", rollout)
        except OSError as error:
            self._log.error("rollout_not_written", model=name, reason=error.strerror)
            raise NotReady(
                "rollout: expected a state folder that can be written, got none: see --state"
            ) from None

    def _find(self, name: str, folder: Path | None, watch: bool) -> tuple[_File | None, Source]:
        if folder is not None:
            path = folder / ROLLOUT
            file = self._read(path) if watch else self._files.get(path)
            if file is not None:
                return file, "repository"
        file = None if self._state is None else self._read(self._state / f"{name}.json")
        return file, "none" if file is None else "state"

    def _read(self, path: Path) -> _File | None:
        """Return a file, read again if it has changed; None if there is none."""
        before = self._files.get(path)
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._files.pop(path, None)
            return None
        except OSError:
            return before or _File((0, 0, 0), b"", "it could not be read")
        state = stat.st_ino, stat.st_size, stat.st_mtime_ns
        if before is None or before.state != state:
            self._files[path] = _read_file(path, state)
        return self._files[path]

    def _before(self, name: str) -> Rollout | None:
        if (known := self._followed.get(name)) is not None and known.resolved is not None:
            return known.rollout
        accepted = self._accepted.find(name)
        return None if accepted is None else msgspec.json.decode(accepted, type=Rollout)

    def _note(self, name: str, active: ActiveRollout, known: ActiveRollout | None) -> None:
        """Log a change, and let the other workers know an accepted rollout."""
        before = None if known is None else known.rollout
        if active.resolved is not None and active.rollout != before:
            self._accepted.put(name, msgspec.json.encode(active.rollout))
            if before is not None or active.rollout != Rollout():
                fields = msgspec.to_builtins(active.rollout)
                self._log.info("rollout_followed", model=name, source=active.source, **fields)
        if active.refusal is not None and (known is None or active.refusal != known.refusal):
            self._log.error("rollout_refused", model=name, reason=active.refusal)


def _activate(
    file: _File | None, source: Source, served: Collection[int], before: Rollout | None
) -> ActiveRollout:
    """Return the rollout of a file, or the part of an earlier one that can be followed."""
    rollout: Rollout | None = None
    try:
        rollout = Rollout() if file is None else _parse(file)
        return ActiveRollout(rollout, source, resolve(rollout, served))
    except ServiceError as error:
        refusal = f"{ROLLOUT}: {error}"
    kept = before if before is not None else rollout
    if kept is None:
        return ActiveRollout(Rollout(), source, None, refusal)
    try:
        return ActiveRollout(kept, source, resolve_served(kept, served), refusal)
    except InvalidRollout:
        return ActiveRollout(kept, source, None, refusal)


def _parse(file: _File) -> Rollout:
    if file.refusal is not None:
        raise InvalidRollout(file.refusal)
    return parse_rollout(file.content)


def _read_file(path: Path, state: FileState) -> _File:
    try:
        expect_regular(path)
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except NotRegularFile:
        return _File(state, b"", "expected a regular file, got none")
    except OSError:
        return _File((0, 0, 0), b"", "it could not be read")
    if len(content) > _MAX_BYTES:
        return _File(state, b"", f"expected at most {_MAX_BYTES} bytes, got more")
    return _File(state, content)


def _replace(path: Path, rollout: Rollout) -> None:
    """Write a file so that a reader sees the old content or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if rollout == Rollout():
        path.unlink(missing_ok=True)
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(rollout))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
