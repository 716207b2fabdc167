"""Source `sparse-block-dot`: the arrays that are arguments of Theano's `sparse_block_dot`.

`.npz` or safetensors with W [iBlocks, oBlocks, iSize, oSize] and b [oBlocks, oSize].
"""

from pathlib import Path

from hsoftmax.models import sparse_block_dot

from .named_tensors import named_arrays, require_arrays
from .source import SourceModel, SourceOptions

_ARRAY_NAMES = ("W", "b")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's layer; it has no targets, so no option applies."""
    with named_arrays(path, options, _ARRAY_NAMES.__contains__) as arrays:
        weight_and_bias = require_arrays(arrays, *_ARRAY_NAMES, path=path)
        return SourceModel(sparse_block_dot.build(*weight_and_bias))


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not names >= set(_ARRAY_NAMES):
        return None
    return f"arrays {', '.join(_ARRAY_NAMES)} of a block-sparse layer"
