"""The textbook ONNX graph for h_softmax: it gathers each target's block for one batched product.

    log_prob = log_softmax(W0 h + b0)[cluster] + log_softmax(W1[cluster] h + b1[cluster])[position]

It copies every block that the batch needs, [pairs, hidden, block] floats. Unequal blocks are padded
to the largest.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, Var, argument

from hsoftmax.exporter.graphs import LoweredGraph, task_specs
from hsoftmax.exporter.graphs.weights import Weights

from .synthetic import WrittenModel


@dataclass(frozen=True)
class Gathered:
    """Cluster, position in the cluster, and block of each pair."""

    cluster: Var  # [P]
    position: Var  # [P]
    weight: Var  # [P, H, K]
    bias: Var  # [P, K]


def target_log_prob(written: WrittenModel) -> LoweredGraph:
    """Build the textbook graph over a two-level model's own weights."""
    weights = Weights(written.tensors)
    task = task_specs(written.model)["target_log_prob"]
    inputs = {port.name: argument(Tensor(np.dtype(port.dtype), port.shape)) for port in task.inputs}
    gather = _equal if written.model.levels[1].block_size is not None else _padded
    log_prob = _log_prob(weights, lambda target: gather(written, weights, target), **inputs)
    proto = spox.build({**inputs, **weights.arguments}, {"log_prob": log_prob})
    return LoweredGraph(task, proto, weights.views)


def _log_prob(
    weights: Weights, gather: Callable[[Var], Gathered], hidden: Var, row: Var, target: Var
) -> Var:
    top = weights.view("level0.weight", *weights.shape("level0.weight")[1:])
    clusters = op.gemm(hidden, top, weights["level0.bias"])
    states, gathered = op.unsqueeze(op.gather(hidden, row), op.const([1])), gather(target)
    logits = op.add(op.squeeze(op.matmul(states, gathered.weight), op.const([1])), gathered.bias)
    return op.add(
        _pick(op.gather(op.log_softmax(clusters, axis=1), row), gathered.cluster),
        _pick(op.log_softmax(logits, axis=1), gathered.position),
    )


def _equal(written: WrittenModel, weights: Weights, target: Var) -> Gathered:
    top, last = written.model.levels
    size = last.block_size or 1
    cluster, position = op.div(target, op.const(size)), op.mod(target, op.const(size))
    biases = weights.view("level1.bias", top.num_rows, size)
    weight = op.gather(weights["level1.weight"], cluster)
    return Gathered(cluster, position, weight, op.gather(biases, cluster))


def _padded(written: WrittenModel, weights: Weights, target: Var) -> Gathered:
    """Gather unequal blocks: rows after a block's end repeat its first row and are masked."""
    offsets = weights["level1.offsets"]
    cluster = op.cast(op.gather(weights["level1.block_of_row"], target), to=np.int64)
    start, end = op.gather(offsets, cluster), op.gather(offsets, op.add(cluster, op.const(1)))
    widest = op.const(np.arange(written.model.levels[1].block_sizes.max()))
    rows = op.add(op.unsqueeze(start, op.const([1])), widest)
    is_real = op.less(rows, op.unsqueeze(end, op.const([1])))
    rows = op.where(is_real, rows, op.unsqueeze(start, op.const([1])))
    bias = op.where(is_real, op.gather(weights["level1.bias"], rows), op.const(np.float32(-np.inf)))
    weight = op.transpose(op.gather(weights["level1.weight"], rows), perm=(0, 2, 1))
    return Gathered(cluster, op.sub(target, start), weight, bias)


def _pick(log_probs: Var, at: Var) -> Var:
    picked = op.gather_elements(log_probs, op.unsqueeze(at, op.const([1])), axis=1)
    return op.squeeze(picked, op.const([1]))
