"""Tells a file's real format by its first bytes, where its name says another one.

A file of the wrong format would otherwise be an error for each of its lines, or no rows at all.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

from hsoftmax.scoring.errors import CallError

_PROBED_BYTES = 2**16

# What files that begin with these bytes are, and the next step for each.
_SIGNATURES = {
    b"\x1f\x8b": ("gzip", "name it {name}.gz, or decompress it"),
    b"\x28\xb5\x2f\xfd": ("zstd", "decompress it: zstd -d"),
    b"\xfd7zXZ\x00": ("xz", "decompress it: xz -d"),
    b"BZh": ("bzip2", "decompress it: bzip2 -d"),
    b"PK\x03\x04": ("zip", "unpack it: unzip"),
    b"PAR1": ("Parquet", "name it {stem}.parquet"),
    b"ARROW1": ("Arrow IPC", "name it {stem}.arrow"),
    b"\xff\xff\xff\xff": ("an Arrow IPC stream", "name it {stem}.arrow"),
    b"FEA1": ("Feather version 1", "write it as version 2"),
    b"\x93NUMPY": ("NPY", "name it {stem}.npy"),
    b"SQLite format 3\x00": ("SQLite", "export its rows as NDJSON or CSV"),
}  # fmt: skip
_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "parquet": ("Parquet",),
    "arrow": ("Arrow IPC", "an Arrow IPC stream"),
    "npy": ("NPY",),
}


def expect_format(path: Path, format: str) -> None:
    """Raises CallError if the first bytes of a file are those of another format."""
    with path.open("rb") as file:
        start = file.read(_PROBED_BYTES)
    if path.suffix == ".gz":
        start = _decompressed(path, start)
    for signature, (found, next_step) in _SIGNATURES.items():
        is_text = signature.isascii() and b"\0" not in start  # such as a header "PAR1,PAR2"
        if start.startswith(signature) and not is_text and found not in _EXPECTED.get(format, ()):
            step = next_step.format(name=path.name, stem=path.stem)
            raise CallError(f"{path}: expected {_NAMES[format]}, got {found}: {step}")


_NAMES = {"ndjson": "NDJSON", "csv": "CSV", "parquet": "Parquet", "arrow": "Arrow IPC",
          "npy": "NPY", "text": "text"}  # fmt: skip


def _decompressed(path: Path, start: bytes) -> bytes:
    """Returns the first bytes of a gzip file's content. Raises CallError if it is none."""
    if not start:
        return b""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, _PROBED_BYTES)
    except zlib.error:
        raise CallError(f"{path}: expected gzip, which it is not: name it {path.stem}") from None
