"""Where a bundle goes: `REPOSITORY/NAME[/VERSION]`, made whole or not at all.

A bundle grows in a hidden directory beside its version, locked by the process that writes it, and
is renamed into place once every byte is on disk. A directory whose writer died is swept away by
the next export.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hsoftmax import bundle

from .errors import DestinationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RESERVED = {"stats"}  # a route of the Open Inference Protocol: /v2/models/stats


@dataclass(frozen=True)
class Destination:
    """One version of one named bundle that does not exist yet."""

    repository: Path
    name: str
    version: int

    @property
    def path(self) -> Path:
        return self.repository / self.name / str(self.version)


def destination(to: Path) -> Destination:
    """Read `REPOSITORY/NAME[/VERSION]`; without a version it is 1.

    Raises:
        DestinationError: a name or version that is none, or a version that exists.
    """
    version = int(to.name) if to.name.isascii() and to.name.isdigit() else None
    path = to if version is None else to.parent
    if not _NAME.fullmatch(path.name) or path.name in _RESERVED:
        raise DestinationError(
            f"name: expected letters, digits, '.', '_' and '-', got {path.name!r}"
        )
    if version == 0:
        raise DestinationError("version: expected 1 or more, got 0")
    found = Destination(path.parent, path.name, version or 1)
    _expect_new(found, told=version is not None)
    return found


@contextmanager
def staged(to: Destination) -> Iterator[Path]:
    """A hidden directory to fill; renamed to `to.path` on leaving, removed on any error."""
    parent = to.path.parent
    made = [directory for directory in (parent, to.repository) if not directory.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    staging = Path(tempfile.mkdtemp(dir=parent, prefix=f".{to.version}.", suffix=".tmp"))
    lock = _lock(staging)
    try:
        yield staging
        _publish(staging, to)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # another export may have begun there meanwhile
            for directory in made:
                directory.rmdir()
        raise
    finally:
        os.close(lock)


def sync(path: Path) -> None:
    """Have a file's or directory's content on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _expect_new(to: Destination, *, told: bool) -> None:
    taken = bundle.versions(to.path.parent)
    if to.version in taken or (taken and not told):
        raise DestinationError(
            f"{to.name}: expected a new version, such as {to.name}/{max(taken) + 1}, "
            f"got {to.version}, which exists"
        )


def _publish(staging: Path, to: Destination) -> None:
    staging.chmod(0o755)  # mkdtemp makes it private, and a server may run as another user
    for file in staging.iterdir():
        sync(file)
    sync(staging)
    try:
        staging.rename(to.path)
    except OSError:
        raise DestinationError(
            f"{to.name}: expected a new version, got {to.version}, which exists"
        ) from None
    sync(to.path.parent)


def _lock(directory: Path) -> int:
    handle = os.open(directory, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _sweep(parent: Path) -> None:
    for left in parent.glob(".*.tmp"):
        try:
            handle = _lock(left)
        except OSError:  # somebody is writing it now
            continue
        shutil.rmtree(left, ignore_errors=True)
        os.close(handle)
