"""Detects the kind of a weights file from its bytes, and lists the names in it.

Nothing in the file is executed or unpickled.
"""

import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files import gzip_file
from hsoftmax.exporter.files.input_file import expect_justified, map_input, open_input
from hsoftmax.exporter.files.npy_files import npz_names
from hsoftmax.exporter.files.shard_index import is_shard_index, read_shard_index

from .pickle_machine import instructions
from .pickle_reader import is_pickle_without_protocol
from .pickled_tensors import pickled_names
from .torch_archive import archive_names

FileKind = Literal[
    "npz",
    "safetensors",
    "PyTorch checkpoint",
    "HDF5 file",
    "pickle",
    "gzip file",
    "index of shards",
    "folder",
    "unknown file",
]

_ZIP_MAGIC = b"PK\x03\x04"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_PICKLE_MAGIC = b"\x80"
_LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
_LEGACY_TORCH_PICKLES = 4  # magic number, version, system information, object
_MAX_HEADER_BYTES = 100 << 20  # the limit that safetensors itself has


def file_kind(path: Path) -> FileKind:
    """Return the kind of a file; raise SourceError if it cannot be read."""
    if path.is_dir():
        return "folder"
    first_bytes = _first_bytes(path)
    if first_bytes.startswith(_ZIP_MAGIC):
        return "PyTorch checkpoint" if _torch_pickle_name(path) else "npz"
    if first_bytes.startswith(_HDF5_MAGIC):
        return "HDF5 file"
    if first_bytes.startswith(gzip_file.MAGIC):
        return "gzip file"
    if first_bytes.startswith(_LEGACY_TORCH_MAGIC):
        return "PyTorch checkpoint"
    if (
        0 < int.from_bytes(first_bytes[:8], "little") <= _MAX_HEADER_BYTES
        and first_bytes[8:9] == b"{"
    ):
        return "safetensors"
    if first_bytes.lstrip().startswith(b"{") and is_shard_index(path):
        return "index of shards"
    if first_bytes.startswith(_PICKLE_MAGIC) or is_pickle_without_protocol(path):
        return "pickle"
    return "unknown file"


def with_article(file_kind: FileKind) -> str:
    """Return the kind with `a` or `an` before it."""
    return f"an {file_kind}" if file_kind[0] in "aeiouH" else f"a {file_kind}"


def contained_names(path: Path) -> frozenset[str]:
    """Return the array names of a file, or all strings of an older checkpoint's pickle.

    The result is empty for other kinds, and for files that are damaged; reading them raises the
    error.

    Raises:
        SourceError: a pickle, a checkpoint or an index that can never be read.
    """
    kind = file_kind(path)
    try:
        return frozenset(_names(path, kind))
    except (MemoryError, SourceError):
        raise
    except Exception:  # a decoder's, for a damaged file
        return frozenset()


def _names(path: Path, kind: FileKind) -> Iterable[str]:
    match kind:
        case "npz":
            with open_input(path) as file:
                return npz_names(file)
        case "safetensors":
            with safe_open(path, framework="numpy") as tensors:
                return list(tensors.keys())
        case "index of shards":
            return read_shard_index(path)
        case "pickle":
            return pickled_names(path)
        case "PyTorch checkpoint" if zipfile.is_zipfile(path):
            return archive_names(path)
        case "PyTorch checkpoint":
            return (text for content in checkpoint_pickles(path) for text in _strings(content))
    return ()


def _first_bytes(path: Path) -> bytes:
    with open_input(path) as file:
        return file.read(16)


def _torch_pickle_name(path: Path) -> str | None:
    """Return the name of the pickle inside a zip file from torch.save, or None."""
    try:
        with zipfile.ZipFile(path) as file:
            return next((name for name in file.namelist() if name.endswith("data.pkl")), None)
    except Exception:  # zipfile's, for a damaged file
        return None


def checkpoint_pickles(path: Path) -> Iterator[Any]:
    """Yield a file for each pickle of a PyTorch checkpoint, at the start of the pickle.

    A reader of the file must read the whole pickle before it takes the next one.
    """
    member_name = _torch_pickle_name(path) if zipfile.is_zipfile(path) else None
    if member_name is None:
        with map_input(path, "a checkpoint") as content:  # unlike a file, it bounds what is read
            for _ in range(_LEGACY_TORCH_PICKLES):
                yield content
    else:
        with zipfile.ZipFile(path) as archive:
            num_bytes = archive.getinfo(member_name).file_size
            expect_justified(path.name, num_bytes, path.stat().st_size)
            yield BytesIO(archive.read(member_name))


def _strings(file: Any) -> Iterator[str]:  # noqa: ANN401 -- anything with read and readline
    """Yield the strings of one pickle, whose instructions are listed but not executed."""
    for _, argument in instructions(file):
        if isinstance(argument, str):
            yield argument
