"""Room on the disk that is kept free for changes that free room or record a failure.

SQLite needs room to record anything, even that a file was deleted. A file of the state folder holds
512 KiB of the disk. When the disk is full, the database gives back a part of this file and repeats
such a change. The job thread fills the file again as soon as there is room.
"""

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from hsoftmax.service.errors import StorageFull

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_RESERVE_BYTES = 2**19
_PART_BYTES = 2**17  # the pages of one change, and the index of SQLite's log, which has 32 KiB
_PROBE_BYTES = 2**16

# Extended codes of these kinds stand for many causes, a quota and a full disk among them.
_AMBIGUOUS = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


class Reserve:
    """The file that holds the room. Any process may release a part of it or fill it again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Give the file its full size, unless the disk has too little room for it."""
        size = self._size()
        if size >= _RESERVE_BYTES:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # no room, not even for a name
            return
        try:
            os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
        except OSError:  # some file systems keep what they had allocated until then
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Give a part of the room back to the disk. Return False if nothing is left."""
        size = self._size()
        if not size:
            return False
        os.truncate(self._path, max(0, size - _PART_BYTES))
        return True

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def is_disk_full(error: Exception, folder: Path) -> bool:
    """True if the error means that the disk of this folder, or the user's quota, is full."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return True
    return code & 0xFF in _AMBIGUOUS and not _has_room(folder)


def no_room() -> StorageFull:
    """The error of a change that the disk of the state folder has no room for."""
    return StorageFull("state: expected room for it on the disk, got none")


def _has_room(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _PROBE_BYTES)
    except OSError as error:
        return error.errno not in NO_ROOM
    return True
