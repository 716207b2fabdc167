"""Source `chainer`: a `BinaryHierarchicalSoftmax` of Chainer, with the tree of its function.

W [nodes, H], and the tree as Chainer's function keeps it: `paths` has the nodes from the root to
each word, one word after the other, `codes` the branch at each, +1 left and -1 right, and `begins
[words + 1]` where each word begins in them. P(step) = sigmoid(code * (W[node] . hidden)).

`chainer.serializers.save_npz` saves W alone, under a prefix such as `loss/`. The tree is in the
link's `_func`, and must be saved with it.
"""

from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.models import huffman_softmax
from hsoftmax.models.arrays import Array, Int64, expect_ndim, expect_shape, to_int64

from .named_tensors import NamedTensors, named_arrays, require_arrays
from .source import SourceModel, SourceOptions, expect_num_targets

_TREE_NAMES = ("begins", "paths", "codes")
_OWN_NAMES = {"W", *_TREE_NAMES}
_BYTES_PER_STEP = 16  # of a node and a sign as int64
_NEXT_STEP = (
    'save it with numpy.savez("softmax.npz", W=link.W.array, begins=link._func.begins, '
    "paths=link._func.paths, codes=link._func.codes)"
)


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the link's tree, and check that it has exactly one leaf for each word."""
    with named_arrays(path, options, _OWN_NAMES.__contains__) as arrays:
        _expect_tree(arrays, path)
        weight, begins, paths, codes = require_arrays(arrays, "W", *_TREE_NAMES, path=path)
        steps = _steps(begins, paths, codes)
        lengths = np.diff(steps[0])
        num_bytes = _BYTES_PER_STEP * len(lengths) * int(lengths.max(initial=0))
        expect_justified(f"{path.name}: paths", num_bytes, path.stat().st_size)
        model = huffman_softmax.build(weight, *_padded(lengths, *steps[1:]), compat=options.compat)
        expect_num_targets(options, path, model.num_targets, "one fewer than begins has")
        return SourceModel(model)


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    return "a BinaryHierarchicalSoftmax of Chainer" if names >= _OWN_NAMES else None


def _expect_tree(arrays: NamedTensors, path: Path) -> None:
    """Raise SourceError for the file that Chainer itself saves, which has no tree."""
    if "W" in arrays and not any(name in arrays for name in _TREE_NAMES):
        raise SourceError(
            f"{path.name}: expected the tree of W, begins, paths and codes, got none: {_NEXT_STEP}"
        )


def _steps(begins: Array, paths: Array, codes: Array) -> tuple[Int64, Int64, Int64]:
    """Return checked begins, nodes and signs."""
    expect_ndim("begins", begins, "words + 1")
    expect_ndim("paths", paths, "steps")
    expect_shape("codes", codes, paths.shape)
    begins, paths = to_int64("begins", begins), to_int64("paths", paths)
    is_ordered = len(begins) > 1 and begins[0] == 0 and (np.diff(begins) >= 0).all()
    if not is_ordered or begins[-1] != len(paths):
        raise SourceError(f"begins: expected ascending numbers from 0 to {len(paths)}, got others")
    if not np.isin(codes, [-1, 1]).all():
        raise SourceError("codes: expected -1 and 1, got others")
    return begins, paths, codes.astype(np.int64)


def _padded(lengths: Int64, paths: Int64, codes: Int64) -> tuple[Int64, Int64]:
    """Return the nodes and signs of each word, [words, depth]."""
    depth = int(lengths.max(initial=0))
    is_step = np.arange(depth) < lengths[:, None]
    nodes, sign = np.zeros((2, len(lengths), depth), dtype=np.int64)
    nodes[is_step], sign[is_step] = paths, codes
    return nodes, sign
