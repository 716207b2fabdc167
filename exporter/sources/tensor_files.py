"""Reads named tensors from a file of any kind that has them, told apart by its content.

A file may be `.npz`, safetensors, a PyTorch checkpoint, a pickle of NumPy's arrays, or the index of
several files.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.shard_index import read_shard_index
from hsoftmax.models.arrays import Array

from .array_files import read_arrays
from .checkpoint import read_checkpoint
from .detection import file_kind, with_article
from .pickled_tensors import read_pickled

IsWanted = Callable[[str], bool]


def read_tensors(path: Path, is_wanted: IsWanted) -> dict[str, Array]:
    """Return the tensors whose names `is_wanted` accepts, which is asked about every name.

    Raises:
        SourceError: another kind of file, a damaged one, or one that holds more than data.
    """
    if file_kind(path) == "index of shards":
        return dict(_read_shards(path, is_wanted))
    return _read_file(path, is_wanted)


def _read_file(path: Path, is_wanted: IsWanted) -> dict[str, Array]:
    match kind := file_kind(path):
        case "npz" | "safetensors":
            return read_arrays(path, is_wanted)
        case "PyTorch checkpoint":
            return dict(read_checkpoint(path, is_wanted))
        case "pickle":
            return dict(read_pickled(path, is_wanted))
    raise SourceError(
        f"{path.name}: expected a PyTorch checkpoint, safetensors, .npz or a pickle of arrays, "
        f"got {with_article(kind)}"
    )


def _read_shards(index: Path, is_wanted: IsWanted) -> Iterator[tuple[str, Array]]:
    """Yield (name, tensor) of all files that an index names.

    All tensors of the files count, also those that the index does not name.
    """
    file_of, found = read_shard_index(index), dict[str, Path]()
    for file in sorted(set(file_of.values())):
        yield from _read_file(file, _noting(found, file, is_wanted)).items()
    for name, file in file_of.items():
        if found.get(name) != file:
            raise SourceError(f"{index.name}: expected {name} in {file.name}, got none")


def _noting(found: dict[str, Path], file: Path, is_wanted: IsWanted) -> IsWanted:
    """Return `is_wanted`, which also notes the file of each name; no two may have one name."""

    def note(name: str) -> bool:
        other = found.setdefault(name, file)
        if other != file:
            raise SourceError(
                f"{file.name}: expected each tensor in one file, got {name} in {other.name}, too"
            )
        return is_wanted(name)

    return note
