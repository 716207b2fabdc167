"""Reads arrays of numbers from `.npy` and `.npz` files; the shape is checked before any allocation.

A header that does not fit the bytes behind it, an array of Python objects and a damaged or
encrypted archive are refused.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Literal

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array
from hsoftmax.models.decoder_errors import decoding
from hsoftmax.models.npy_header import MAX_NPY_HEADER_BYTES, NpyError, NpyHeader, read_npy_header

from .input_file import expect_justified, open_input

_SUFFIX = ".npy"
_READ_BYTES = 16 << 20


def map_npy(path: Path) -> Array:
    """Map the array of a `.npy` file.

    Raises:
        SourceError: it is not a whole file of numbers.
    """
    with open_input(path) as file:
        header = _header(path.name, file.read(MAX_NPY_HEADER_BYTES), path.stat().st_size)
    if not header.content_bytes:
        return np.zeros(header.shape, header.dtype)
    order: Literal["C", "F"] = "F" if header.by_column else "C"
    array: Array = np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
    return array


def read_npz(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """Yield (name, array) of the arrays in a `.npz` file whose names `is_wanted` accepts.

    Raises:
        SourceError: it is not a whole `.npz` file of numbers.
    """

    def damaged(_: str) -> SourceError:
        return SourceError(f"{path.name}: expected a whole .npz file, got one that is damaged")

    with open_input(path) as file:
        with decoding(damaged):
            archive = zipfile.ZipFile(file)
        wanted = {
            name: info
            for info in archive.infolist()
            if is_wanted(name := info.filename.removesuffix(_SUFFIX))
        }
        num_bytes = sum(info.file_size for info in wanted.values())
        expect_justified(path.name, num_bytes, path.stat().st_size)
        for name, info in wanted.items():
            with decoding(damaged):
                array = _read_member(path, archive, info)
            yield name, array


def npz_names(file: BinaryIO) -> list[str]:
    """Return the names of the arrays in a `.npz` file; any error of zipfile passes."""
    with zipfile.ZipFile(file) as archive:
        return [name.removesuffix(_SUFFIX) for name in archive.namelist()]


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as member:
        start = member.read(MAX_NPY_HEADER_BYTES)
        header = _header(f"{path.name}: {info.filename}", start, info.file_size)
        array = np.empty(header.shape, header.dtype, "F" if header.by_column else "C")
        _fill(array, start[header.offset :], member)
        return array


def _fill(array: Array, start: bytes, rest: IO[bytes]) -> None:
    """Read the bytes of an array: those read with the header, then the rest."""
    content = memoryview(array.reshape(-1, order="A").view(np.uint8).data)
    content[: len(start)] = start
    for at in range(len(start), len(content), _READ_BYTES):
        piece = rest.read(min(_READ_BYTES, len(content) - at))
        content[at : at + len(piece)] = piece
        if not piece:
            raise EOFError
    if rest.read(1):
        raise ValueError


def _header(name: str, start: bytes, num_bytes: int) -> NpyHeader:
    try:
        header = read_npy_header(start)
    except NpyError as error:
        raise SourceError(f"{name}: {error}") from None
    if header.dtype.hasobject:
        raise SourceError(f"{name}: expected numbers, got an array of Python objects")
    if header.offset + header.content_bytes != num_bytes:
        raise SourceError(
            f"{name}: expected {header.offset + header.content_bytes} bytes, as its header says, "
            f"got {num_bytes}"
        )
    return header
