"""Writes a bundle to `REPOSITORY/NAME[/VERSION]` completely or not at all.

A bundle is written to a hidden directory in its model folder, which the writing process locks. Once
every byte is on disk, the directory is renamed to its version. The next export removes directories
whose writer has died.
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


def parse_destination(path: Path) -> Destination:
    """Parse `REPOSITORY/NAME[/VERSION]`; the default version is 1.

    Raises:
        DestinationError: an invalid name or version, or a version that exists.
    """
    version = int(path.name) if path.name.isascii() and path.name.isdigit() else None
    bundle_path = path if version is None else path.parent
    if not _NAME.fullmatch(bundle_path.name) or bundle_path.name in _RESERVED:
        raise DestinationError(
            f"name: expected letters, digits, '.', '_' and '-', got {bundle_path.name!r}"
        )
    if version == 0:
        raise DestinationError("version: expected 1 or more, got 0")
    destination = Destination(bundle_path.parent, bundle_path.name, version or 1)
    _expect_new(destination, has_version=version is not None)
    return destination


@contextmanager
def stage_bundle(destination: Destination) -> Iterator[Path]:
    """Create a hidden directory for the bundle's files and yield its path.

    The directory is renamed to `destination.path` on success and removed on any error.
    """
    parent = destination.path.parent
    created = [
        directory for directory in (parent, destination.repository) if not directory.exists()
    ]
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    staging = Path(tempfile.mkdtemp(dir=parent, prefix=f".{destination.version}.", suffix=".tmp"))
    lock = _lock(staging)
    try:
        yield staging
        _publish(staging, destination)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # another export may have started in it
            for directory in created:
                directory.rmdir()
        raise
    finally:
        os.close(lock)


def fsync_path(path: Path) -> None:
    """Flush the content of a file or directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _expect_new(destination: Destination, *, has_version: bool) -> None:
    existing = bundle.versions(destination.path.parent)
    if destination.version in existing or (existing and not has_version):
        raise DestinationError(
            f"{destination.name}: expected a new version, such as "
            f"{destination.name}/{max(existing) + 1}, got {destination.version}, which exists"
        )


def _publish(staging: Path, destination: Destination) -> None:
    staging.chmod(0o755)  # mkdtemp makes it private, but a server may run as another user
    for file in staging.iterdir():
        fsync_path(file)
    fsync_path(staging)
    try:
        staging.rename(destination.path)
    except OSError:
        raise DestinationError(
            f"{destination.name}: expected a new version, got {destination.version}, which exists"
        ) from None
    fsync_path(destination.path.parent)


def _lock(directory: Path) -> int:
    handle = os.open(directory, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(".*.tmp"):
        try:
            handle = _lock(directory)
        except OSError:  # another process is writing it
            continue
        shutil.rmtree(directory, ignore_errors=True)
        os.close(handle)
