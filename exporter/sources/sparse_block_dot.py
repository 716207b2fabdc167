"""Source `sparse-block-dot`: the arrays that Theano's `sparse_block_dot` is called with.

`.npz` or safetensors with W [iBlocks, oBlocks, iSize, oSize] and b [oBlocks, oSize].
"""

from pathlib import Path

from hsoftmax.models import sparse_block_dot

from .array_files import read_arrays, require
from .detection import names
from .source import Loaded, Options

_WEIGHTS = ("W", "b")


def load(path: Path, options: Options) -> Loaded:
    """The file's layer; it has no targets, so no option applies."""
    arrays = read_arrays(path, lambda name: name in _WEIGHTS)
    return Loaded(sparse_block_dot.build(*require(arrays, *_WEIGHTS, path=path)))


def recognises(path: Path) -> str | None:
    if not names(path) >= set(_WEIGHTS):
        return None
    return f"arrays {', '.join(_WEIGHTS)} of a block-sparse layer"
