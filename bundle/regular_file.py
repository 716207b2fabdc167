"""Opens files that a user names: only regular ones, as a pipe, a socket or a device has no end."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from hsoftmax.models import UserError

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class NotRegularFile(UserError):
    """The path leads to something that is not a regular file."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raises:
        NotRegularFile: a pipe, a socket, a device or a folder.
        OSError: there is no such file, or it cannot be read.
    """
    expect_regular(path)  # opening a device may have an effect
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(handle, "rb")
    try:
        _expect_regular_mode(path, os.fstat(handle).st_mode)
    except NotRegularFile:
        file.close()
        raise
    return file


def expect_regular(path: Path) -> None:
    """Raise NotRegularFile unless the path leads to a regular file, and OSError if to nothing."""
    _expect_regular_mode(path, path.stat().st_mode)


def _expect_regular_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegularFile(f"{path}: expected a regular file, got {kind}")
