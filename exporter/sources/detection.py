"""What a weights file is, told from its bytes, and the names in it. Nothing is run or unpickled."""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from safetensors import SafetensorError, safe_open

from hsoftmax.exporter.errors import SourceError

Kind = Literal[
    "npz", "safetensors", "PyTorch checkpoint", "HDF5 file", "pickle", "folder", "unknown file"
]

_ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save began with
_OLD_TORCH_PICKLES = 4  # that number, a version, facts of the machine, and the object itself
_MAX_HEADER = 100 << 20  # safetensors' own bound on its JSON header


def kind(path: Path) -> Kind:
    """What sort of file it is; SourceError where it cannot be read."""
    if path.is_dir():
        return "folder"
    start = _first_bytes(path)
    if start.startswith(_ZIP):
        return "PyTorch checkpoint" if _torch_pickle(path) else "npz"
    if start.startswith(_HDF5):
        return "HDF5 file"
    if start.startswith(_OLD_TORCH):
        return "PyTorch checkpoint"
    if 0 < int.from_bytes(start[:8], "little") <= _MAX_HEADER and start[8:9] == b"{":
        return "safetensors"
    return "pickle" if start.startswith(_PICKLE) else "unknown file"


def article(kind: Kind) -> str:
    """`a` or `an`, and the kind."""
    return f"an {kind}" if kind in {"HDF5 file", "unknown file"} else f"a {kind}"


def names(path: Path) -> frozenset[str]:
    """The names of the arrays in an npz or safetensors, or every string in a checkpoint's pickle.

    Empty where the file has none or is damaged: reading it will say why.
    """
    try:
        match kind(path):
            case "npz":
                with zipfile.ZipFile(path) as file:
                    return frozenset(name.removesuffix(".npy") for name in file.namelist())
            case "safetensors":
                with safe_open(path, framework="numpy") as tensors:
                    return frozenset(tensors.keys())
            case "PyTorch checkpoint":
                return frozenset(_checkpoint_strings(path))
    except (zipfile.BadZipFile, SafetensorError, OSError, ValueError):
        pass
    return frozenset()


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise SourceError(f"{path}: expected a file, got {error.strerror}") from None


def _torch_pickle(path: Path) -> str | None:
    """The name of the pickle inside a zip that torch.save wrote."""
    try:
        with zipfile.ZipFile(path) as file:
            return next((name for name in file.namelist() if name.endswith("data.pkl")), None)
    except (zipfile.BadZipFile, OSError):
        return None


def _checkpoint_strings(path: Path) -> Iterator[str]:
    pickled = _torch_pickle(path) if zipfile.is_zipfile(path) else None
    if pickled is None:
        with path.open("rb") as file:
            for _ in range(_OLD_TORCH_PICKLES):
                yield from _strings(file)
    else:
        with zipfile.ZipFile(path) as archive, archive.open(pickled) as member:
            yield from _strings(member)


def _strings(file: IO[bytes]) -> Iterator[str]:
    """The strings of one pickle: its instructions are listed, not followed."""
    for _, argument, _ in pickletools.genops(file):
        if isinstance(argument, str):
            yield argument
