"""Reads named arrays from `.npz` and safetensors files, which are told apart by their content.

Pickled arrays are refused.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .detection import file_kind


def read_arrays(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, Array]:
    """Return the arrays whose names `is_wanted` accepts; the others are not read.

    Raises:
        SourceError: neither format, a truncated file, or an array of Python objects.
    """
    match file_kind(path):
        case "npz":
            return dict(_npz(path, is_wanted))
        case "safetensors":
            return dict(_safetensors(path, is_wanted))
    raise SourceError(f"{path.name}: expected .npz or safetensors, got a file that is neither")


def require_arrays(arrays: Mapping[str, Array], *names: str, path: Path) -> list[Array]:
    """Return the named arrays in order; raise SourceError if one is missing."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise SourceError(f"{path.name}: expected {', '.join(names)}, got no {', '.join(missing)}")
    return [arrays[name] for name in names]


def _npz(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
            for name in filter(is_wanted, npz.files):
                yield name, npz[name]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        reason = "an array of Python objects" if "pickle" in str(error) else "one that is damaged"
        raise SourceError(f"{path.name}: expected a whole .npz file, got {reason}") from None


def _safetensors(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """Yield (name, array); bfloat16, which NumPy lacks, becomes float32."""
    try:
        with safe_open(path, framework="numpy") as file:
            for name in filter(is_wanted, file.keys()):
                is_bfloat16 = file.get_slice(name).get_dtype() == "BF16"
                yield name, _read_bfloat16(path, name) if is_bfloat16 else file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: expected whole safetensors, got: {error}") from None


def _read_bfloat16(path: Path, name: str) -> Array:
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + header_size + start)
        halves = np.frombuffer(file.read(end - start), dtype="<u2")
    array: Array = (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    return array
