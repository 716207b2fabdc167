"""Products of hidden rows with transposed float blocks; each block is read once and in order.

    rows [m, 1, H] x blocks [n, 1, H, K] -> [m, n * K], the blocks' products side by side

With one row at a time, ONNX Runtime reads a block in place, and the next row finds it in cache.
With several rows at once it packs the block, in strides that are slow unless the block was just
copied. The number of rows decides which is faster.

The blocks have more axes than the rows; otherwise ONNX Runtime would combine the rows.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import as_float, ints, length, static_size

MAX_SINGLE_ROWS = 4  # four passes over a cached block cost no more than a copy of it


def product(rows: Var, blocks: Var) -> Var:
    """Multiply with blocks in place, by the faster method for m rows."""
    is_small = op.less_or_equal(length(rows), ints(MAX_SINGLE_ROWS))
    return op.if_(
        is_small,
        then_branch=lambda: [row_by_row_product(rows, blocks)],
        else_branch=lambda: [batched_product(rows, _copy_blocks(blocks))],
    )[0]


def row_by_row_product(rows: Var, blocks: Var) -> Var:
    """Multiply with blocks in place as m products of one row each."""
    return concat_products(op.matmul(rows, as_float(blocks)), blocks)


def batched_product(rows: Var, blocks: Var) -> Var:
    """Multiply as one product per block; the blocks should be in cache."""
    side = op.reshape(rows, ints(1, -1, 0))
    return concat_products(op.matmul(side, as_float(blocks)), blocks)


def concat_products(products: Var, blocks: Var) -> Var:
    """Products [n, m, K], possibly with one more axis, of blocks [n, ..., K] -> [m, n * K]."""
    count, size = static_size(blocks, 0), static_size(blocks, -1)
    if count == 1:
        return op.reshape(products, ints(-1, size))
    stacked = op.transpose(op.reshape(products, ints(count, -1, size)), perm=(1, 0, 2))
    return op.reshape(stacked, ints(-1, count * size))


def _copy_blocks(blocks: Var) -> Var:
    """Return a copy of the blocks, or their conversion to float32; either reads them in order."""
    converted = as_float(blocks)
    if converted is not blocks:
        return converted
    return op.slice(blocks, ints(0), ints(static_size(blocks, 2)), ints(2))
