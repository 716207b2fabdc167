"""Opens a weights file, and bounds the memory that its content may take.

Every source reads its files through this module: only regular files, and never more numbers than
the length of the file can justify.
"""

import mmap
from pathlib import Path
from typing import BinaryIO

from hsoftmax import bundle
from hsoftmax.exporter.errors import SourceError

_ALWAYS_ALLOWED_BYTES = 64 << 20
_MAX_EXPANSION = 64  # weights expand two to eight times; a bomb expands a thousand times


def open_input(path: Path) -> BinaryIO:
    """Open a file for reading. Raises SourceError unless it is a regular file."""
    try:
        return bundle.open_regular(path)
    except bundle.NotRegularFile as error:
        raise SourceError(str(error)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a path that is none"
        raise SourceError(f"{path.name}: expected a file, got {reason}") from None


def map_input(path: Path, expected: str) -> mmap.mmap:
    """Map a file, so that nothing in it can allocate more memory than it has.

    Raises:
        SourceError: it is not a regular file, or it is empty; the message says `expected`.
    """
    with open_input(path) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise SourceError(f"{path.name}: expected {expected}, got an empty file") from None


def max_expanded_bytes(file_bytes: int) -> int:
    """Return the memory that the content of a file of this length may take."""
    return _ALWAYS_ALLOWED_BYTES + _MAX_EXPANSION * file_bytes


def expect_justified(field: str, num_bytes: int, file_bytes: int) -> None:
    """Raise SourceError if the content would take more memory than its file's length justifies."""
    limit = max_expanded_bytes(file_bytes)
    if num_bytes > limit:
        raise SourceError(
            f"{field}: expected at most {limit} bytes of numbers in a file of {file_bytes} bytes, "
            f"got {num_bytes}"
        )
