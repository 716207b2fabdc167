"""Reads the tensors of a PyTorch checkpoint as data, without PyTorch and without running the file.

Since version 1.6 a checkpoint is a zip archive: `data.pkl`, a pickle in which each tensor is a call
that names a storage, a place in it, a size and strides, and `data/0`, `data/1`, ... with the bytes
of the storages. The pickle is read as data. The few calls that rebuild a tensor are known here by
name, and checked against the storage's length; any other object is a value that is not a tensor.
"""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import expect_justified, open_input
from hsoftmax.models.arrays import Array
from hsoftmax.models.decoder_errors import decoding

from .pickle_machine import PickledCall, PickledGlobal
from .pickle_reader import read_checkpoint_pickle
from .pickled_arrays import describe
from .pickled_tensors import MAX_DEPTH, expect_few_names, flatten, is_container

PICKLE_NAME = "data.pkl"
_BYTE_ORDER_NAME = "byteorder"
_BFLOAT16 = "BFloat16Storage"
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    _BFLOAT16: "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_MAX_ITEM_BYTES = 8  # of a number; a tensor may repeat its numbers, by a stride of 0
_MAX_AXES = 32
_MAX_SIZE = 2**63 - 1


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the pickle describes it."""

    storage: str
    key: str
    length: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_archive(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """Yield the tensors whose dotted names `is_wanted` accepts; 16-bit floats become float32.

    Raises:
        SourceError: a damaged file, or a wanted name with something else than a dense tensor.
    """

    with _open_archive(path) as (archive, folder, root):
        num_bytes = 0
        for name, value in flatten(root, MAX_DEPTH):
            if is_wanted(name):
                tensor = _tensor(f"{path.name}: {name}", value)
                num_bytes += _MAX_ITEM_BYTES * math.prod(tensor.size)
                expect_justified(f"{path.name}: {name}", num_bytes, path.stat().st_size)
                with decoding(_damaged(path)):
                    array = _read(archive, folder, tensor)
                yield name, array


def archive_names(path: Path) -> list[str]:
    """Return the dotted names of all values in a checkpoint. Raises SourceError."""
    with _open_archive(path) as (_, _, root):
        return [name for name, _ in flatten(root, MAX_DEPTH)]


@contextmanager
def _open_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, str, object]]:
    """Give the archive, the folder in it, and the dictionary or list of the pickle."""
    with open_input(path) as file:
        with decoding(_damaged(path)):
            archive = zipfile.ZipFile(file)
            _expect_justified_members(archive, path)
            folder, root = _read_root(archive, path)
        yield archive, folder, root


def _damaged(path: Path) -> Callable[[str], SourceError]:
    return lambda reason: SourceError(
        f"{path.name}: expected a whole PyTorch checkpoint, got one that is damaged ({reason})"
    )


def _expect_justified_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise SourceError for an archive that expands to more than its length can justify."""
    num_bytes = sum(info.file_size for info in archive.infolist())
    expect_justified(path.name, num_bytes, path.stat().st_size)


def _read_root(archive: zipfile.ZipFile, path: Path) -> tuple[str, object]:
    """Return the folder of the checkpoint in the archive, and its dictionary or list of tensors."""
    name = next(name for name in archive.namelist() if name.endswith(PICKLE_NAME))
    root = read_checkpoint_pickle(archive.read(name))
    if not is_container(root):
        raise SourceError(
            f"{path.name}: expected a checkpoint of tensors alone, got {describe(root)}: save "
            "model.state_dict() in its place"
        )
    expect_few_names(path, root)
    return name.removesuffix(PICKLE_NAME), root


def _tensor(name: str, value: object) -> _Tensor:
    """Return the description of a dense tensor. Raises SourceError for any other value."""
    function = value.function if isinstance(value, PickledCall) else None
    arguments: Any = value.arguments if isinstance(value, PickledCall) else None
    if isinstance(function, PickledGlobal) and function.module == "torch._utils":
        match function.name, arguments:
            case "_rebuild_parameter" | "_rebuild_parameter_with_state", (inner, *_):
                return _tensor(name, inner)
            case "_rebuild_tensor" | "_rebuild_tensor_v2", (storage, offset, size, stride, *_):
                kind, key, length = _storage(storage)
                if kind in _STORAGES and _fits(offset, size, stride, length):
                    return _Tensor(kind, key, length, offset, size, stride)
    raise SourceError(f"{name}: expected a dense tensor, got {describe(value)}")


def _storage(value: object) -> tuple[str, str, int]:
    """Return the kind of a storage, its key in the archive and its length."""
    if isinstance(value, PickledCall) and value.function == "persistent id":
        match value.arguments:
            case ("storage", PickledGlobal("torch", kind), str(key), _, int(length)):
                return kind, key, length
    return "", "", 0


def _fits(offset: Any, size: Any, stride: Any, length: int) -> bool:  # noqa: ANN401
    """Return True if every element of the tensor lies in its storage."""
    if not (_are_sizes((offset,)) and _are_sizes(size) and _are_sizes(stride)):
        return False
    if len(size) != len(stride) or len(size) > _MAX_AXES:
        return False
    last: int = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return 0 in size or last < length <= _MAX_SIZE


def _are_sizes(values: Any) -> bool:  # noqa: ANN401
    return isinstance(values, tuple) and all(type(n) is int and n >= 0 for n in values)


def _read(archive: zipfile.ZipFile, folder: str, tensor: _Tensor) -> Array:
    """Return the elements of a tensor."""
    if 0 in tensor.size:
        return np.zeros(tensor.size, np.float32)
    dtype = np.dtype(_STORAGES[tensor.storage]).newbyteorder(_byte_order(archive, folder))
    content = archive.read(f"{folder}data/{tensor.key}")
    if len(content) != tensor.length * dtype.itemsize:
        raise ValueError(f"storage {tensor.key} has another length than the pickle says")
    start, strides = tensor.offset * dtype.itemsize, [n * dtype.itemsize for n in tensor.stride]
    array: Array = np.ndarray(tensor.size, dtype, content, start, strides)
    if tensor.storage == _BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32 if dtype.kind == "f" else dtype.newbyteorder("="))


def _byte_order(archive: zipfile.ZipFile, folder: str) -> Literal["<", ">"]:
    """Return the order of the bytes of numbers; older versions wrote none down."""
    name = f"{folder}{_BYTE_ORDER_NAME}"
    is_big = name in archive.namelist() and archive.read(name).strip() == b"big"
    return ">" if is_big else "<"
