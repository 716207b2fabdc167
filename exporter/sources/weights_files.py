"""Finds the weights file of a folder, such as `save_pretrained` of transformers writes."""

from collections.abc import Iterable
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.shard_index import shard_files

_INDEX_SUFFIX = ".index.json"
_WEIGHTS_PATTERNS = ("*.safetensors", "*.bin", "*.pt")


def weights_file(path: Path) -> Path:
    """Return the path itself, or the only weights file of a folder; safetensors come first.

    An index of shards stands for all the files that it names.

    Raises:
        SourceError: a folder with no weights file, or with several that no index names.
    """
    if not path.is_dir():
        return path
    for pattern in _WEIGHTS_PATTERNS:
        indexes = sorted(path.glob(pattern + _INDEX_SUFFIX))
        shards = {file.name for index in indexes for file in shard_files(index)}
        files = [
            *indexes,
            *(file for file in sorted(path.glob(pattern)) if file.name not in shards),
        ]
        if len(files) == 1:
            return files[0]
        if files:
            raise SourceError(
                f"{path}: expected one weights file {pattern}, got {_names(files)}: name one of "
                "them in place of the folder"
            )
    raise SourceError(
        f"{path}: expected a folder with a weights file {', '.join(_WEIGHTS_PATTERNS)}"
    )


def _names(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
