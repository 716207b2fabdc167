"""Lowers SparseBlockDot: a loop over the input window adds the products of each input block.

    output[b, j] = bias[output_index[b, j]]
                   + sum over i of h[b, i] . weight[input_index[b, i], output_index[b, j]]

Only the blocks of one pair (b, i) are copied out of the weights at a time: the memory is
[output window, input size, output size], for any batch and any input window.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import SparseBlockDot

from .ops import concat, count, integer, ints, scalar, true
from .weights import Weights


def block_dot(
    model: SparseBlockDot, weights: Weights, h: Var, input_index: Var, output_index: Var
) -> tuple[Var]:
    """h [B, iWin, iSize], input_index [B, iWin], output_index [B, oWin] -> [B, oWin, oSize]."""
    blocks, size = (
        model.sizes.input_blocks * model.sizes.output_blocks,
        (model.sizes.input_size, model.sizes.output_size),
    )
    weight = weights.view("weight", blocks, *size)

    def row(b: Var, condition: Var) -> list[Var]:
        b = scalar(b)
        output_blocks = op.gather(output_index, b)
        start = op.gather(weights["bias"], output_blocks)
        states, inputs = op.gather(h, b), op.gather(input_index, b)

        def window(i: Var, condition: Var, total: Var) -> list[Var]:
            block = op.add(
                op.mul(op.gather(inputs, scalar(i)), integer(model.sizes.output_blocks)),
                output_blocks,
            )
            state = op.unsqueeze(op.gather(states, i), ints(0))
            product = op.matmul(state, op.gather(weight, block))
            return [true(), op.add(total, op.squeeze(product, ints(1)))]

        return [true(), *op.loop(count(inputs), v_initial=[start], body=window)]

    (outputs,) = op.loop(count(h), body=row)
    shape = concat(op.shape(output_index), ints(model.sizes.output_size))
    return (op.reshape(outputs, shape),)
