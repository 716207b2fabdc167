"""target_log_prob: the sum of the local log-softmaxes along each target's path, and no more.

    log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)]

Many pairs visit each distinct block once. For a few, fewer operators matter more: all their blocks
are copied at once, as the textbook graph does it, and the top level is one Gemm.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from models import HierarchicalSoftmax

from .levels import LevelWeights, gathered_logits, levels
from .log_probs import cluster_log_probs, top_logits
from .ops import column, ints, length, pick
from .states import States
from .visits import FEW, Visit, visit_blocks
from .weights import Weights


def target_log_prob(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> tuple[Var]:
    """hidden [B, H], row [P], target [P] -> log_prob [P]."""
    level_row = target if model.target_rows is None else op.gather(weights["target_rows"], target)
    path = []
    for level in reversed(levels(model, weights)[1:]):
        block = level.block_of_row(level_row)
        path.append((level, block, level.position(level_row, block)))
        level_row = block

    def many() -> list[Var]:
        top = cluster_log_probs(model, weights, hidden)[0]
        local = [_visited(level, hidden, row, *at) for level, *at in path]
        return [_sum(pick(top, row, level_row), local)]

    def few() -> list[Var]:
        top = levels(model, weights)[0]
        states = top.states(hidden)
        clusters = op.log_softmax(_few_logits(top, hidden, states), axis=1)
        local = [_at_once(level, hidden, states, row, *at) for level, *at in path]
        return [_sum(pick(clusters, row, level_row), local)]

    is_few = op.less_or_equal(length(target), ints(FEW))
    return (op.if_(is_few, then_branch=few, else_branch=many)[0],)


def _few_logits(top: LevelWeights, hidden: Var, states: States) -> Var:
    if not top.is_float32:
        return top_logits(top, states)
    whole = top.whole()
    return op.gemm(hidden, whole.weight, whole.bias, transB=1)


def _visited(level: LevelWeights, hidden: Var, row: Var, block: Var, position: Var) -> Var:
    def choose(visit: Visit, position: Var) -> tuple[Var]:
        return (pick(visit.log_probs, visit.call, position),)

    return visit_blocks(level, hidden, row, block, choose, position)[0]


def _at_once(
    level: LevelWeights, hidden: Var, states: States, row: Var, block: Var, position: Var
) -> Var:
    if level.level.block_size is None:
        return _visited(level, hidden, row, block, position)
    log_probs = op.log_softmax(gathered_logits(level, block, hidden, states, row), axis=1)
    return op.squeeze(op.gather_elements(log_probs, column(position), axis=1), ints(1))


def _sum(total: Var, terms: list[Var]) -> Var:
    for term in terms:
        total = op.add(total, term)
    return total
