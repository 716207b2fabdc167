"""Opens the files of line formats, plain or compressed by gzip, and knows their extensions.

Positions in a compressed file count the bytes of its content. To go back in one means to read it
from its beginning again, so rows are read in order.
"""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from hsoftmax.scoring.errors import ScoringError

GZIP = ".gz"
_LINE_EXTENSIONS = (".ndjson", ".jsonl", ".csv", ".txt")
_BUFFER_BYTES = 2**20
_LENGTH_BYTES = 4  # at the end of a gzip file: the length of its content, modulo 2**32


def extension_of(path: Path) -> str:
    """Returns the extension that tells the format: of `rows.csv.gz`, `.csv`."""
    inner = Path(path.stem).suffix
    return inner if path.suffix == GZIP and inner in _LINE_EXTENSIONS else path.suffix


def open_lines(path: Path) -> BinaryIO:
    """Opens a file of lines, whose content is decompressed as it is read.

    Reading raises ScoringError if the compressed content is damaged.
    """
    if path.suffix != GZIP:
        return path.open("rb", buffering=_BUFFER_BYTES)
    return io.BufferedReader(_GzipContent(path), _BUFFER_BYTES)


def content_size(path: Path) -> int:
    """Returns the bytes of a file's content; of a compressed file an estimate."""
    size = path.stat().st_size
    if path.suffix != GZIP or size < _LENGTH_BYTES:
        return size
    with path.open("rb") as file:
        file.seek(-_LENGTH_BYTES, io.SEEK_END)
        return max(size, int.from_bytes(file.read(_LENGTH_BYTES), "little"))


class _GzipContent(io.RawIOBase):
    """The content of a gzip file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = gzip.open(path, "rb")  # noqa: SIM115  `close` closes it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  any buffer
        try:
            return self._content.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(error) from None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._content.seek(offset, whence)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(error) from None

    def tell(self) -> int:
        return self._content.tell()

    def close(self) -> None:
        self._content.close()
        super().close()

    def _damaged(self, error: Exception) -> ScoringError:
        reason = str(error).partition("\n")[0]
        return ScoringError(f"{self._path}: expected gzip to its end, got: {reason}")
