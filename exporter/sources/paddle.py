"""Source `paddle`: the parameters of PaddlePaddle's `HSigmoidLoss`, from `paddle.save`.

weight [nodes, H] and bias [nodes, 1], or no bias (bias_attr=False). P(bit 1) = sigmoid(weight[node]
. hidden + bias[node]). The file has no tree:

* The default tree over N classes is complete. Class c is the number c + N, of which the bits after
  the first are the branches from the root, and each prefix of them, less 1, is a node. It has
  N - 1 nodes; the number of classes must be given, because a custom tree may have as many rows.
* A custom tree is given by `path_table [N, depth]` and `path_code`, the arguments of the loss,
  which must be saved with the weight. After the end of a path both are negative.
"""

from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.models import huffman_softmax
from hsoftmax.models.arrays import Array, Int64, expect_ndim, expect_shape, to_int64

from .named_tensors import Harmless, NamedTensors, named_arrays, require_arrays
from .source import SourceModel, SourceOptions, expect_num_targets

_TREE_NAMES = ("path_table", "path_code")
_OWN_NAMES = {"weight", "bias", *_TREE_NAMES}
_NAME_TABLE = "StructuredToParameterName@@"  # by which a file of paddle.save is known
_HARMLESS: Harmless = {rf"{_NAME_TABLE}(\..+)?": "other names of the same parameters"}
_BYTES_PER_STEP = 16  # of a node and a sign as int64


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the softmax over the default tree, or over the tree in the file."""
    with named_arrays(path, options, _OWN_NAMES.__contains__, _HARMLESS) as arrays:
        (weight,) = require_arrays(arrays, "weight", path=path)
        expect_ndim("weight", weight, "nodes", "H")
        paths = _paths(arrays, len(weight), path, options)
        bias = _bias(arrays, len(weight))
        model = huffman_softmax.build(weight, *paths, bias=bias, compat=options.compat)
        return SourceModel(model)


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    is_saved = "weight" in names and any(name.startswith(_NAME_TABLE) for name in names)
    if not is_saved and not names >= {"weight", *_TREE_NAMES}:
        return None
    return "parameters of PaddlePaddle's HSigmoidLoss"


def _bias(arrays: NamedTensors, num_nodes: int) -> Array | None:
    bias = arrays.get("bias")
    if bias is None:
        return None
    if bias.ndim == 2:
        expect_shape("bias", bias, (num_nodes, 1))
        return bias[:, 0]
    expect_shape("bias", bias, (num_nodes,))
    return bias


def _paths(
    arrays: NamedTensors, num_nodes: int, path: Path, options: SourceOptions
) -> tuple[Int64, Int64]:
    """Return the nodes and signs of each class, [classes, depth]."""
    if any(name in arrays for name in _TREE_NAMES):
        table, code = require_arrays(arrays, *_TREE_NAMES, path=path)
        expect_ndim("path_table", table, "classes", "depth")
        expect_num_targets(options, path, len(table), "the rows of path_table")
        return _custom_paths(table, code)
    if options.num_targets != num_nodes + 1:
        actual = "none" if options.num_targets is None else str(options.num_targets)
        raise SourceError(
            f"{path.name}: --num-targets: expected {num_nodes + 1} for the default tree, "
            f"got {actual}: give it, or save path_table and path_code of a custom tree with weight"
        )
    depth = num_nodes.bit_length()
    num_bytes = _BYTES_PER_STEP * depth * (num_nodes + 1)
    expect_justified(f"{path.name}: weight", num_bytes, path.stat().st_size)
    return _default_paths(num_nodes + 1, depth)


def _custom_paths(table: Array, code: Array) -> tuple[Int64, Int64]:
    expect_shape("path_code", code, table.shape)
    table, code = to_int64("path_table", table), to_int64("path_code", code)
    is_step = table >= 0
    if not np.isin(code[is_step], [0, 1]).all():
        raise SourceError("path_code: expected 0 and 1, got others")
    return np.where(is_step, table, 0), np.where(is_step, 2 * code - 1, 0)


def _default_paths(num_classes: int, depth: int) -> tuple[Int64, Int64]:
    number = np.arange(num_classes, 2 * num_classes)[:, None]  # of each class's leaf
    length = np.frexp(number.astype(np.float64))[1] - 1  # exact, unlike a logarithm
    rest = length - np.arange(depth)  # bits that are left at each step
    is_step = rest > 0
    nodes = (number >> np.maximum(rest, 0)) - 1
    bits = (number >> np.maximum(rest - 1, 0)) & 1
    return np.where(is_step, nodes, 0), np.where(is_step, 2 * bits - 1, 0)
