"""Hidden rows times transposed blocks of floats, each block read once and in order.

    rows [m, 1, H] x blocks [n, 1, H, K] -> [m, n * K], the blocks' products side by side

One row at a time, ONNX Runtime streams a block from where it lies, and the next row finds it in
cache; more rows at once are a product for which it packs the block, in strides that read memory
badly unless the block was copied just before. Which is quicker depends on how many rows there are.

The blocks have more axes than the rows, or else ONNX Runtime would take the rows together.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import as_float, ints, length, static_size

ONE_BY_ONE = 4  # rows: so many passes over a block in cache cost no more than its copy


def product(rows: Var, blocks: Var) -> Var:
    """Of blocks in place, in the way that is quicker for m."""
    few = op.less_or_equal(length(rows), ints(ONE_BY_ONE))
    return op.if_(
        few,
        then_branch=lambda: [one_by_one(rows, blocks)],
        else_branch=lambda: [together(rows, _copy(blocks))],
    )[0]


def one_by_one(rows: Var, blocks: Var) -> Var:
    """As m products of one row each, from blocks in place."""
    return side_by_side(op.matmul(rows, as_float(blocks)), blocks)


def together(rows: Var, blocks: Var) -> Var:
    """As one product a block; the blocks should lie in cache."""
    side = op.reshape(rows, ints(1, -1, 0))
    return side_by_side(op.matmul(side, as_float(blocks)), blocks)


def side_by_side(products: Var, blocks: Var) -> Var:
    """Of n blocks [n, ..., K], products [n, m, K] with or without an axis more -> [m, n * K]."""
    count, size = static_size(blocks, 0), static_size(blocks, -1)
    if count == 1:
        return op.reshape(products, ints(-1, size))
    stacked = op.transpose(op.reshape(products, ints(count, -1, size)), perm=(1, 0, 2))
    return op.reshape(stacked, ints(-1, count * size))


def _copy(blocks: Var) -> Var:
    """The same, not in place: that is what reads them."""
    converted = as_float(blocks)
    if converted is not blocks:
        return converted
    return op.slice(blocks, ints(0), ints(static_size(blocks, 2)), ints(2))
