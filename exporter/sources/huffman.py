"""Source `huffman`: any binary tree, as plain arrays.

`.npz` or safetensors with syn1 [nodes, H], optionally bias [nodes], and path and sign [targets,
depth]: the nodes from the root to each leaf and the branch at each. P(step) = sigmoid(sign *
(syn1[node] . hidden + bias[node])). After the end of a path, path is 0 or -1 and sign is 0.
"""

from pathlib import Path

from hsoftmax.models import huffman_softmax

from .named_tensors import named_arrays, require_arrays
from .source import SourceModel, SourceOptions, expect_num_targets

_ARRAY_NAMES = ("syn1", "path", "sign")
_OWN_NAMES = {*_ARRAY_NAMES, "bias"}


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's tree, and check that it has exactly one leaf for each target."""
    with named_arrays(path, options, _OWN_NAMES.__contains__) as arrays:
        tree = require_arrays(arrays, *_ARRAY_NAMES, path=path)
        model = huffman_softmax.build(*tree, bias=arrays.get("bias"), compat=options.compat)
        expect_num_targets(options, path, model.num_targets, "the rows of path")
        return SourceModel(model)


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not names >= set(_ARRAY_NAMES):
        return None
    return f"arrays {', '.join(_ARRAY_NAMES)} of a binary tree"
