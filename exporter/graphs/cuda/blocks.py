"""Graphs that compute with blocks of rows on CUDA: log-softmaxes, and results from them.

    local(line, call) [K] = log_softmax(hidden[row[line, call]] @ weight[line]^T + bias[line])

A *line* is one block for this run, and its *calls* are the hidden rows that read it. The host plans
lines and calls (`hsoftmax.runtime.cuda.line_plan`), so the graphs have no loop and compute no
shape. Dimensions in this module: B hidden rows of H values, D lines of R calls and K rows, P pairs
of a call and what is wanted from it. A place is line * R + call.

Weights are inputs, so that all graphs share one copy on the device. The same graphs serve every
level, the head and the tails of an adaptive softmax, and a block of any size.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, Var, argument

from hsoftmax.exporter.graphs.contrib import product_with_rows
from hsoftmax.exporter.graphs.ops import ints, real, vector

Vars = dict[str, Var]


def floats(*shape: int | str) -> Var:
    return argument(Tensor(np.float32, shape))


def indices(*shape: int | str) -> Var:
    return argument(Tensor(np.int64, shape))


def gather_blocks() -> tuple[Vars, Vars]:
    """Copy blocks out of a level, each padded to K rows: weight [D, K, H], bias [D, 1, K].

    Padding has the bias -inf and so no probability.
    """
    inputs = {
        "level_weight": floats("N", "H"), "level_bias": floats("N"),
        "first": indices("D"), "size": indices("D"), "place": indices("K"),
    }  # fmt: skip
    first, size = (op.unsqueeze(inputs[name], ints(1)) for name in ("first", "size"))
    row = op.add(first, op.min([inputs["place"], op.sub(size, ints(1))]))
    bias = op.where(
        op.less(inputs["place"], size), op.gather(inputs["level_bias"], row), real(-np.inf)
    )
    outputs = {
        "weight": op.gather(inputs["level_weight"], row), "bias": op.unsqueeze(bias, ints(1))
    }  # fmt: skip
    return inputs, outputs


def project() -> tuple[Vars, Vars]:
    """Multiply hidden rows [m, H] with a projection [width, H] -> [m, width]."""
    inputs = {"hidden": floats("m", "H"), "projection": floats("width", "H")}
    return inputs, {"projected": op.gemm(inputs["hidden"], inputs["projection"], transB=1)}


def target_log_prob() -> tuple[Vars, Vars]:
    """Pick one log p of the local log-softmaxes for each pair; `index` [P] is into [D * R * K]."""
    inputs, local = local_log_probs()
    inputs["index"] = indices("P")
    return inputs, {"log_prob": op.gather(vector(local), inputs["index"])}


def log_probs() -> tuple[Vars, Vars]:
    """Add log p of the parent of each block [D, R, 1] -> log_probs [R, D, K]."""
    inputs, local = local_log_probs()
    inputs["parent"] = floats("D", "R", 1)
    total = op.add(local, inputs["parent"])
    return inputs, {"log_probs": op.transpose(total, perm=(1, 0, 2))}


def sample() -> tuple[Vars, Vars]:
    """Draw a position of its block for each pair, and return it with its log p, [P] each.

    The cumulative sum is that of `categorical`, in float64, but in pieces: the rows of a call are
    reshaped to `pieces` [-1, n, c], `within` [c, c] adds up each piece, `before` [n, n] the pieces
    before each. CUDA's CumSum adds up all rows before each row anew.
    """
    inputs, local = local_log_probs()
    inputs |= {
        "allowed": floats("D1", 1, "K1"), "padding": indices(6), "pieces": indices(3),
        "within": argument(Tensor(np.float64, ("c", "c"))),
        "before": argument(Tensor(np.float64, ("n", "n"))),
        "whole": indices(2), "width": indices(1),
        "place": indices("P"), "last": indices("P"), "uniform": floats("P", 1),
    }  # fmt: skip
    # Normalised again: without it, exp of all allowed rows may underflow next to the others.
    distribution = op.log_softmax(op.add(local, inputs["allowed"]), axis=-1)
    cumulative = op.gather(_cumulative_sums(distribution, inputs), inputs["place"])
    threshold = op.mul(
        op.gather(cumulative, ints(-1), axis=1), op.cast(inputs["uniform"], to=np.float64)
    )
    position = op.min([_count_at_most(cumulative, threshold), inputs["last"]])
    index = op.add(op.mul(inputs["place"], inputs["width"]), position)
    return inputs, {"position": position, "log_prob": op.gather(vector(local), index)}


def _cumulative_sums(distribution: Var, inputs: Vars) -> Var:
    """[D, R, K] log p -> [D * R, n * c] float64: the sums of p up to each position."""
    p = op.pad(
        op.cast(op.exp(distribution), to=np.float64), inputs["padding"], op.const(np.float64(0))
    )
    within = op.matmul(op.reshape(p, inputs["pieces"]), inputs["within"])
    totals = op.squeeze(op.gather(within, ints(-1), axis=2), ints(2))
    before = op.unsqueeze(op.matmul(totals, inputs["before"]), ints(2))
    return op.reshape(op.add(within, before), inputs["whole"])


def _count_at_most(values: Var, threshold: Var) -> Var:
    """Return int64 [P]: how many values of each row are at most its threshold."""
    is_below = op.cast(op.less_or_equal(values, threshold), to=np.float32)  # exact up to 2^24
    return op.cast(op.reduce_sum(is_below, ints(1), keepdims=0), to=np.int64)


def local_log_probs() -> tuple[Vars, Var]:
    inputs = {
        "hidden": floats("B", "H"), "row": indices("D", "R"),
        "weight": floats("D", "K", "H"), "bias": floats("D", 1, "K"),
    }  # fmt: skip
    states = op.gather(inputs["hidden"], inputs["row"])
    logits = op.add(product_with_rows(states, inputs["weight"]), inputs["bias"])
    return inputs, op.log_softmax(logits, axis=-1)
