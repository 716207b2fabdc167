"""Reads named arrays from `.npz` and safetensors files, which are told apart by their content.

Pickled arrays are refused.
"""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import open_input
from hsoftmax.exporter.files.npy_files import read_npz
from hsoftmax.models.arrays import Array
from hsoftmax.models.decoder_errors import decoding

from .detection import file_kind


def read_arrays(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, Array]:
    """Return the arrays whose names `is_wanted` accepts; the others are not read.

    Raises:
        SourceError: neither format, a truncated file, or an array of Python objects.
    """
    match file_kind(path):
        case "npz":
            return dict(read_npz(path, is_wanted))
        case "safetensors":
            return dict(_safetensors(path, is_wanted))
    raise SourceError(f"{path.name}: expected .npz or safetensors, got a file that is neither")


def _safetensors(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """Yield (name, array); bfloat16, which NumPy lacks, becomes float32."""

    def damaged(reason: str) -> SourceError:
        return SourceError(f"{path.name}: expected whole safetensors, got: {reason}")

    open_input(path).close()  # a pipe has no end
    with decoding(damaged):
        file: Any = safe_open(path, framework="numpy")
        names = list(file.keys())
    halves = _Bfloat16File(path)
    for name in filter(is_wanted, names):
        with decoding(damaged):
            is_bfloat16 = file.get_slice(name).get_dtype() == "BF16"
            array = halves.read(name) if is_bfloat16 else file.get_tensor(name)
        yield name, array


class _Bfloat16File:
    """The tensors of a safetensors file as bytes; its header is read once, when it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _header(self) -> tuple[int, dict[str, Any]]:
        with open_input(self._path) as file:
            size = int.from_bytes(file.read(8), "little")
            return 8 + size, json.loads(file.read(size))

    def read(self, name: str) -> Array:
        offset, entries = self._header
        start, end = entries[name]["data_offsets"]
        with open_input(self._path) as file:
            file.seek(offset + start)
            halves = np.frombuffer(file.read(end - start), dtype="<u2")
        array: Array = (halves.astype(np.uint32) << 16).view(np.float32)
        return array.reshape(entries[name]["shape"])
