"""Named arrays from `.npz` and safetensors files, told apart by content. Nothing is unpickled."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .detection import kind


def read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, Array]:
    """The arrays whose names are wanted; all others stay unread.

    Raises:
        SourceError: not a file of either format, truncated, or an array of Python objects.
    """
    match kind(path):
        case "npz":
            return dict(_npz(path, wanted))
        case "safetensors":
            return dict(_safetensors(path, wanted))
    raise SourceError(f"{path.name}: expected .npz or safetensors, got a file that is neither")


def require(arrays: dict[str, Array], *names: str, path: Path) -> list[Array]:
    """The named arrays in order; SourceError says which is missing and what is there."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise SourceError(f"{path.name}: expected {', '.join(names)}, got no {', '.join(missing)}")
    return [arrays[name] for name in names]


def _npz(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
            for name in filter(wanted, npz.files):
                yield name, npz[name]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        reason = "an array of Python objects" if "pickle" in str(error) else "one that is damaged"
        raise SourceError(f"{path.name}: expected a whole .npz file, got {reason}") from None


def _safetensors(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """NumPy has no bfloat16: it is the upper half of a float32."""
    try:
        with safe_open(path, framework="numpy") as file:
            for name in filter(wanted, file.keys()):
                half = file.get_slice(name).get_dtype() == "BF16"
                yield name, _bfloat16(path, name) if half else file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: expected whole safetensors, got: {error}") from None


def _bfloat16(path: Path, name: str) -> Array:
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + header_size + start)
        halves = np.frombuffer(file.read(end - start), dtype="<u2")
    wide: Array = (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    return wide
