"""The local folder of a mirrored store. Its processes share it; the one with the lock writes.

repository/<name>/<version>   link to the content of a version; the service watches this folder
bundles/<digest>/             content, once for each digest
bundles/.<digest>.tmp/        content that is being downloaded
synced                        exists once the store has been read completely
lock                          locked by the process that downloads
"""

import fcntl
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreError

_GRACE_S = 60.0  # a version stays on the disk for it, as a process may be opening it


@dataclass(frozen=True, slots=True)
class Cache:
    """Paths in the folder, and the changes of it."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def is_synced(self) -> bool:
        """True if the store has been read completely before, by any process."""
        return (self.folder / "synced").exists()

    def make(self) -> None:
        """Create the folders, which only this user can enter. Raises StoreError."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.repository, self.folder / "bundles"):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"store cache: expected a folder that can be written at {self.folder}, "
                f"got: {error.strerror}: set --store-cache"
            ) from None

    def lock(self) -> int | None:
        """Lock the folder for this process; return the descriptor, or None if another has it."""
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def mark_synced(self) -> None:
        (self.folder / "synced").touch()

    def content(self, digest: str) -> Path:
        return self.folder / "bundles" / digest

    def staging(self, digest: str) -> Path:
        return self.folder / "bundles" / f".{digest}.tmp"

    def linked(self) -> dict[str, str]:
        """The digest of each version, by `<name>/<version>`."""
        links = (path for path in self.repository.glob("*/*") if path.is_symlink())
        return {f"{p.parent.name}/{p.name}": Path(os.readlink(p)).name for p in links}

    def link(self, key: str, digest: str) -> None:
        """Make the content the one of this version, in one step."""
        path = self.repository / key
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(self.content(digest))
        new.replace(path)

    def unlink(self, key: str) -> None:
        """Remove a version; its content stays until room is needed."""
        path = self.repository / key
        os.utime(path)  # the content's: it was in use until now
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()

    def write_extra(self, key: str, content: bytes) -> None:
        """Write a small file beside the versions of a model, in one step."""
        path = self.repository / key
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content)
        new.replace(path)

    def extras(self) -> list[str]:
        """`<name>/<file>` of each small file."""
        files = (p for p in self.repository.glob("*/*") if p.is_file() and p.name[0] != ".")
        return [f"{p.parent.name}/{p.name}" for p in files]

    def remove_extra(self, key: str) -> None:
        (self.repository / key).unlink(missing_ok=True)

    def evict(self, max_bytes: int, keep: Collection[str] = ()) -> list[str]:
        """Delete content that no version has, the oldest first, until the rest fits.

        `keep` are digests that a version is about to have.

        Returns:
            The digests that were deleted. Content in use is never deleted.
        """
        used = {*self.linked().values(), *keep}
        folders = [one for one in (self.folder / "bundles").iterdir() if one.is_dir()]
        total = sum(map(_size, folders))
        free = [one for one in folders if one.name not in used]
        evicted = []
        for folder in sorted(free, key=lambda one: one.stat().st_mtime):
            if total <= max_bytes or time.time() - folder.stat().st_mtime < _GRACE_S:
                break
            total -= _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            evicted.append(folder.name)
        return evicted


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))
