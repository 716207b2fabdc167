"""Products of a whole weight in fewer bits, which is converted to float32 tile by tile.

ONNX Runtime would convert a whole tensor when the session loads, into a private copy. So a Scan
converts a tile, multiplies it, and goes on to the next.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models.storage.precision import scale_name

from .ops import as_float, concat, ints, length
from .weights import Weights

_TILE_ROWS = 1024


def converted_product(weights: Weights, name: str, columns: Var) -> Var:
    """Return weight [rows, width] @ columns [width, m] -> [rows, m] of a weight in fewer bits."""
    rows, width = weights.shape(name)
    size = min(rows, _TILE_ROWS)
    tiles, rest = divmod(rows, size)
    # Reading the number of columns keeps them out of the body: see `distinct_blocks`.
    shape = concat(ints(tiles * size), length(columns, axis=1))
    stacked = op.scan(
        [weights.rows(name, 0, tiles, size, width)],
        body=lambda tile: [op.matmul(as_float(tile), columns)],
        num_scan_inputs=1,
    )[0]
    products = op.reshape(stacked, shape)
    if rest:
        last = as_float(weights.rows(name, tiles * size, rest, width))
        products = concat(products, op.matmul(last, columns))
    scale = scale_name(name)
    return op.mul(products, weights.view(scale, rows, 1)) if scale in weights else products
