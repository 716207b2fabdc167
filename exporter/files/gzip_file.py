"""Expands gzip files, never to more bytes than the length of the file can justify."""

import gzip
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.decoder_errors import decoding

from .input_file import expect_justified, max_expanded_bytes, open_input

MAGIC = b"\x1f\x8b"


def read_gzip(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the expanded content of a gzip file, or its first `max_bytes` bytes.

    Raises:
        SourceError: a damaged file, or one that expands to more than its length can justify.
    """

    def damaged(reason: str) -> SourceError:
        return SourceError(f"{path.name}: expected a whole gzip file, got: {reason}")

    limit = max_expanded_bytes(path.stat().st_size)
    wanted = limit + 1 if max_bytes is None else max_bytes
    with open_input(path) as file, decoding(damaged), gzip.GzipFile(fileobj=file) as expanded:
        content = expanded.read(wanted)
    if max_bytes is None:
        expect_justified(f"{path.name}: gzip", len(content), path.stat().st_size)
    return content
