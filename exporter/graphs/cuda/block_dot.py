"""The graph of a SparseBlockDot for CUDA: each distinct block is multiplied once for its calls."""

import spox.opset.ai.onnx.v21 as op

from hsoftmax.exporter.graphs.contrib import product_with_rows
from hsoftmax.exporter.graphs.ops import ints
from hsoftmax.models import SparseBlockDot

from .blocks import Vars, floats, indices


def block_dot(model: SparseBlockDot) -> tuple[Vars, Vars]:
    """Add up the products of each output's input window.

    hidden [B * iWin, iSize], row [D, R] and weight [D, oSize, iSize] as in `blocks`;
    place [B * oWin, iWin] of each product in [D * R], output_index [B * oWin] -> [B * oWin, oSize].
    """
    inputs = {
        "hidden": floats("B", "H"), "row": indices("D", "R"), "weight": floats("D", "K", "H"),
        "place": indices("O", "iWin"), "output_index": indices("O"),
        "output_bias": floats("blocks", model.sizes.output_size),
    }  # fmt: skip
    states = op.gather(inputs["hidden"], inputs["row"])
    products = op.reshape(
        product_with_rows(states, inputs["weight"]), ints(-1, model.sizes.output_size)
    )
    sums = op.reduce_sum(op.gather(products, inputs["place"]), ints(1), keepdims=0)
    bias = op.gather(inputs["output_bias"], inputs["output_index"])
    return inputs, {"output": op.add(sums, bias)}
