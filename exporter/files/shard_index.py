"""Reads the index of sharded weights: the file in which each tensor lies.

Libraries divide large weights into parts, such as `model-00001-of-00004.safetensors`, and write an
index beside them, such as `model.safetensors.index.json`: a JSON object with a `weight_map` from
the name of each tensor to the name of its file. The files lie in the folder of the index; they may
be links, as in the cache of a model hub, but their names lead nowhere else.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from hsoftmax.bundle import TextFileError, decode_text
from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.decoder_errors import decoding

from .input_file import open_input

_WEIGHT_MAP = b'"weight_map"'
_START_BYTES = 1 << 20  # in which the weight map begins
_MAX_BYTES = 256 << 20
_MAX_FILES = 10_000
_MAX_NAME_BYTES = 255
_MAX_NAME_CHARS = 80  # of a file in a message


def is_shard_index(path: Path) -> bool:
    """Return True if the file is a JSON object with a weight map near its start."""
    with open_input(path) as file:
        start = file.read(_START_BYTES)
    return start.lstrip().startswith(b"{") and _WEIGHT_MAP in start


def read_shard_index(path: Path) -> dict[str, Path]:
    """Return the file of each tensor by the tensor's name.

    Raises:
        SourceError: it is not such JSON, or a file's name leads out of the folder.
    """

    def damaged(_: str) -> SourceError:
        return SourceError(
            f"{path.name}: expected JSON with a weight_map from tensors to files, got none"
        )

    with open_input(path) as file, decoding(damaged):
        content = json.loads(_text(file.read(_MAX_BYTES), path))
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not weight_map or not isinstance(weight_map, dict):
        raise damaged("")
    files = {name: path.with_name(_plain_name(name, path)) for name in _names(weight_map, path)}
    return {tensor: files[name] for tensor, name in weight_map.items()}


def shard_files(path: Path) -> tuple[Path, ...]:
    """Return the files that an index names, each once. Raises SourceError."""
    return tuple(sorted(set(read_shard_index(path).values())))


def _text(content: bytes, path: Path) -> str:
    try:
        return decode_text(content, path.name)
    except TextFileError as error:
        raise SourceError(str(error)) from None


def _names(weight_map: Mapping[str, object], index: Path) -> set[object]:
    """Return the names of the files, each once."""
    names: set[object] = {name if isinstance(name, str) else None for name in weight_map.values()}
    if len(names) > _MAX_FILES:
        raise SourceError(f"{index.name}: expected at most {_MAX_FILES} files, got {len(names)}")
    return names


def _plain_name(name: object, index: Path) -> str:
    if not isinstance(name, str) or not _is_plain(name):
        shown = repr(name[:_MAX_NAME_CHARS]) if isinstance(name, str) else "none"
        raise SourceError(f"{index.name}: expected names of files in its own folder, got {shown}")
    return name


def _is_plain(name: str) -> bool:
    """Return True for a name that a file in a folder can have."""
    is_name = name.isprintable() and not {"/", "\\"} & set(name) and name not in {"", ".", ".."}
    return is_name and len(name.encode()) <= _MAX_NAME_BYTES
