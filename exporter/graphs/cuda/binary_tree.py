"""Graphs of a binary tree for CUDA. The host knows the path of each target, and when walks end.

Dimensions: B hidden rows of H values, P pairs, d steps of the longest path of a run, E edges.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.exporter.graphs.binary_tree import log_branches, log_step
from hsoftmax.exporter.graphs.ops import integer, ints, real, transpose
from hsoftmax.models import HuffmanSoftmax

from .blocks import Vars, floats, indices

STEPS_PER_RUN = 8  # of a walk


def doubling_rounds(model: HuffmanSoftmax) -> int:
    """Return how often the reach of a sum along a path is doubled, up to the deepest leaf."""
    return (model.depth - 1).bit_length()


def target_log_prob(model: HuffmanSoftmax) -> tuple[Vars, Vars]:
    """hidden [B, H], row [P], path and sign [P, d] (sign 0 for no step) -> log_prob [P]."""
    inputs = _weights(model) | {
        "hidden": floats("B", "H"), "row": indices("P"),
        "path": indices("P", "d"), "sign": floats("P", "d"),
    }  # fmt: skip
    logits = _node_logits(inputs, inputs["path"], op.gather(inputs["hidden"], inputs["row"]))
    steps = log_step(model, op.mul(inputs["sign"], logits))
    log_prob = op.where(op.equal(inputs["sign"], real(0.0)), real(0.0), steps)
    return inputs, {"log_prob": op.reduce_sum(log_prob, ints(1), keepdims=0)}


def log_probs(model: HuffmanSoftmax) -> tuple[Vars, Vars]:
    """hidden [B, H], above0 ... [E + 1], leaf [N] -> log_probs [B, N].

    Edge 2 * node + branch leads down from the node; a last edge of log p 0 is above the root. Sum s
    of an edge starts with its own log p. Round r adds the sum of the edge 2^r above it, so that the
    sums reach twice as far up after each round.
    """
    inputs = _weights(model) | {"hidden": floats("B", "H")}
    above = [f"above{r}" for r in range(doubling_rounds(model))]
    inputs |= {name: indices("E1") for name in above} | {"leaf": indices("N")}
    logits = op.matmul(inputs["syn1"], transpose(inputs["hidden"]))
    if "bias" in inputs:
        logits = op.add(logits, op.unsqueeze(inputs["bias"], ints(1)))
    branches = [op.unsqueeze(one, ints(1)) for one in log_branches(model, logits)]
    edges = op.reshape(op.concat(branches, axis=1), ints(2 * model.num_nodes, -1))
    sums = op.pad(edges, ints(0, 0, 1, 0), real(0.0))
    for name in above:
        sums = op.add(sums, op.gather(sums, inputs[name]))
    return inputs, {"log_probs": transpose(op.gather(sums, inputs["leaf"]))}


def sample(model: HuffmanSoftmax) -> tuple[Vars, Vars]:
    """Walk down a few steps: start, start_log_prob [P], noise [P, steps] -> position, log_prob [P].

    A position is a node, or -1 - target at a leaf, where a walk stays. children [2 * nodes] is
    `binary_tree.children` flat.
    """
    inputs = _weights(model) | {
        "hidden": floats("B", "H"), "row": indices("P"), "children": indices("C"),
        "start": indices("P"), "start_log_prob": floats("P"), "noise": floats("P", STEPS_PER_RUN),
    }  # fmt: skip
    states = op.gather(inputs["hidden"], inputs["row"])
    position, total = inputs["start"], inputs["start_log_prob"]
    for step in range(STEPS_PER_RUN):
        node = op.max([position, integer(0)])
        logits = op.squeeze(_node_logits(inputs, op.unsqueeze(node, ints(1)), states), ints(1))
        is_positive = op.less(op.gather(inputs["noise"], integer(step), axis=1), op.sigmoid(logits))
        local = log_step(model, op.where(is_positive, logits, op.neg(logits)))
        edge = op.add(op.mul(node, integer(2)), op.cast(is_positive, to=np.int64))
        walks = op.greater_or_equal(position, integer(0))
        total = op.add(total, op.where(walks, local, real(0.0)))
        position = op.where(walks, op.gather(inputs["children"], edge), position)
    return inputs, {"position": position, "log_prob": total}


def _weights(model: HuffmanSoftmax) -> Vars:
    weights = {"syn1": floats("nodes", "H")}
    return weights if model.bias is None else weights | {"bias": floats("nodes")}


def _node_logits(inputs: Vars, node: Var, states: Var) -> Var:
    """node [P, d], states [P, H] -> the logits of these nodes, [P, d]."""
    products = op.matmul(op.gather(inputs["syn1"], node), op.unsqueeze(states, ints(2)))
    logits = op.squeeze(products, ints(2))
    return op.add(logits, op.gather(inputs["bias"], node)) if "bias" in inputs else logits
