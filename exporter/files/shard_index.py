"""Reads the index of sharded weights: the file in which each tensor lies.

Libraries divide large weights into parts, such as `model-00001-of-00004.safetensors`, and write an
index beside them, such as `model.safetensors.index.json`: a JSON object with a `weight_map` from
the name of each tensor to the name of its file. The files lie in the folder of the index; they may
be links, as in the cache of a model hub, but their names lead nowhere else.
"""

import json
from pathlib import Path, PurePosixPath

from hsoftmax.bundle import TextFileError, decode_text
from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.decoding import decoding

from .input_file import open_input

_WEIGHT_MAP = b'"weight_map"'
_START_BYTES = 1 << 20  # in which the weight map begins
_MAX_BYTES = 256 << 20
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
    return {tensor: path.with_name(_plain_name(name, path)) for tensor, name in weight_map.items()}


def shard_files(path: Path) -> tuple[Path, ...]:
    """Return the files that an index names, each once. Raises SourceError."""
    return tuple(sorted(set(read_shard_index(path).values())))


def _text(content: bytes, path: Path) -> str:
    try:
        return decode_text(content, path.name)
    except TextFileError as error:
        raise SourceError(str(error)) from None


def _plain_name(name: object, index: Path) -> str:
    is_plain = isinstance(name, str) and name not in {"", ".", ".."} and "\\" not in name
    if not is_plain or PurePosixPath(str(name)).name != name:
        shown = repr(name[:_MAX_NAME_CHARS]) if isinstance(name, str) else "none"
        raise SourceError(f"{index.name}: expected names of files in its own folder, got {shown}")
    return str(name)
