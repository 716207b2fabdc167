"""HierarchicalSoftmax as ONNX graphs: one function per task, all in log space.

    log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)]
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from models import HierarchicalSoftmax, Level

from .weights import Weights


def log_probs(model: HierarchicalSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, N]."""
    rows = _row_log_probs(model, weights, hidden, len(model.levels))
    if model.target_rows is not None:
        return (op.gather(rows, weights["target_rows"], axis=1),)
    return (_first(rows, model.num_targets),)


def cluster_log_probs(model: HierarchicalSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, C]."""
    return (_row_log_probs(model, weights, hidden, 1),)


def target_log_prob(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> tuple[Var]:
    """hidden [B, H], row [P], target [P] -> log_prob [P]."""
    full = log_probs(model, weights, hidden)[0]
    picked = op.gather_elements(op.gather(full, row), op.unsqueeze(target, _ints(1)), axis=1)
    return (op.squeeze(picked, _ints(1)),)


def top_k(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var, max_blocks: Var
) -> tuple[Var, Var, Var, Var]:
    """hidden [B, H], k [1] -> log_prob [B, k], target [B, k], blocks [B], exact [B]."""
    full = log_probs(model, weights, hidden)[0]
    log_prob, target = op.top_k(full, k)
    batch = op.slice(op.shape(hidden), _ints(0), _ints(1))
    all_blocks = op.expand(_ints(sum(lv.num_blocks for lv in model.levels[1:])), batch)
    return log_prob, target, all_blocks, op.expand(op.const(np.array([True])), batch)


def _row_log_probs(model: HierarchicalSoftmax, weights: Weights, hidden: Var, depth: int) -> Var:
    total: Var | None = None
    for i, level in enumerate(model.levels[:depth]):
        local = _level_log_softmax(level, weights, hidden, i)
        above = None if total is None else op.gather(total, op.const(level.block_of_row), axis=1)
        total = local if above is None else op.add(above, local)
    assert total is not None
    return total


def _level_log_softmax(level: Level, weights: Weights, hidden: Var, i: int) -> Var:
    logits = op.gemm(hidden, weights[f"level{i}.weight"], weights[f"level{i}.bias"], transB=1)
    blocks = [
        op.log_softmax(op.slice(logits, _ints(a), _ints(b), _ints(1)), axis=1)
        for a, b in zip(level.offsets[:-1], level.offsets[1:], strict=True)
    ]
    return op.concat(blocks, axis=1)


def _first(rows: Var, count: int) -> Var:
    return op.slice(rows, _ints(0), _ints(count), _ints(1))


def _ints(*values: int) -> Var:
    return op.const(np.array(values, dtype=np.int64))
