"""Named arrays from `.npz` and safetensors files, told apart by content. Nothing is unpickled."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from exporter.errors import SourceError
from models.arrays import Array

_ZIP = b"PK\x03\x04"
_MAX_HEADER = 100 << 20  # safetensors' own bound on its JSON header


def read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, Array]:
    """The arrays whose names are wanted; all others stay unread.

    Raises:
        SourceError: not a file of either format, truncated, or an array of Python objects.
    """
    start = _first_bytes(path)
    if start.startswith(_ZIP):
        return dict(_npz(path, wanted))
    if 0 < int.from_bytes(start[:8], "little") <= _MAX_HEADER and start[8:9] == b"{":
        return dict(_safetensors(path, wanted))
    raise SourceError(f"{path.name}: expected .npz or safetensors, got a file that is neither")


def require(arrays: dict[str, Array], *names: str, path: Path) -> list[Array]:
    """The named arrays in order; SourceError says which is missing and what is there."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise SourceError(f"{path.name}: expected {', '.join(names)}, got no {', '.join(missing)}")
    return [arrays[name] for name in names]


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise SourceError(f"{path}: expected a file, got {error.strerror}") from None


def _npz(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
            for name in filter(wanted, npz.files):
                yield name, npz[name]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        reason = "an array of Python objects" if "pickle" in str(error) else "one that is damaged"
        raise SourceError(f"{path.name}: expected a whole .npz file, got {reason}") from None


def _safetensors(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    try:
        with safe_open(path, framework="numpy") as file:
            for name in filter(wanted, file.keys()):
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: expected whole safetensors, got: {error}") from None
