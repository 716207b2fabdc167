"""Source `huffman`: any binary tree, as plain arrays.

`.npz` or safetensors with syn1 [nodes, H], path and sign [targets, depth]: the nodes from the root
to each leaf and which branch is taken, P(step) = sigmoid(sign * syn1[node] . hidden). Where a path
has ended, path is 0 or -1 and sign is 0.
"""

from pathlib import Path

from hsoftmax.models import huffman_softmax

from .array_files import read_arrays, require
from .detection import names
from .source import Loaded, Options, expect_num_targets

_WEIGHTS = ("syn1", "path", "sign")


def load(path: Path, options: Options) -> Loaded:
    """The file's tree; it is verified to be one, with one leaf for each target."""
    arrays = read_arrays(path, lambda name: name in _WEIGHTS)
    model = huffman_softmax.build(*require(arrays, *_WEIGHTS, path=path), compat=options.compat)
    expect_num_targets(options, path, model.num_targets, "the rows of path")
    return Loaded(model)


def recognises(path: Path) -> str | None:
    if not names(path) >= set(_WEIGHTS):
        return None
    return f"arrays {', '.join(_WEIGHTS)} of a binary tree"
