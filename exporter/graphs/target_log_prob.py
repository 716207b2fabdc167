"""target_log_prob: the sum of the local log-softmaxes along each target's path, and no more.

    log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)]

Many pairs visit each distinct block once. For a few, fewer operators matter more: all their blocks
are copied at once, as the textbook graph does it.
"""

from functools import partial

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .block_visits import Visit, visit_blocks
from .hidden_states import States
from .levels import LevelWeights, levels, logits_apart
from .log_probs import cluster_log_probs
from .ops import between, column, count, full, integer, ints, length, pick, vector, yes
from .weights import Weights

_AT_ONCE = 7_000_000  # bytes of blocks
_AT_ONCE_TOP = 1 << 19  # bytes of the logits of clusters
_FEWEST, _MOST = 4, 64  # pairs


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
        local = [_visited(level, hidden, row, *at) for level, *at in path]
        return [_sum(_of_cluster(model, weights, hidden, row, level_row), local)]

    def few() -> list[Var]:
        states = top.states_apart(op.gather(hidden, column(row)))
        local = [
            _at_once(level, states, *at)
            if level.is_transposed
            else op.reshape(_visited(level, hidden, row, *at, few=True), ints(-1, 1, 1))
            for level, *at in path
        ]
        return [vector(_sum(_chosen(logits_apart(top.whole(), states), level_row), local))]

    top = levels(model, weights)[0]
    if not top.is_transposed:
        return (many()[0],)
    is_few = op.less_or_equal(length(target), ints(_few(model, weights)))
    return (op.if_(is_few, then_branch=few, else_branch=many)[0],)


def _few(model: HierarchicalSoftmax, weights: Weights) -> int:
    """Pairs whose blocks are copied together: some megabytes of them."""
    if not all(level.is_transposed for level in levels(model, weights)):
        return _FEWEST
    largest = max(level.block_bytes for level in levels(model, weights))
    return max(_FEWEST, min(_AT_ONCE // largest, _MOST))


def _of_cluster(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, cluster: Var
) -> Var:
    """log p(cluster [P] | hidden[row [P]]), a part of the rows at a time."""
    at_once = max(1, _AT_ONCE_TOP // (4 * model.num_clusters))

    def body(i: Var, going: Var, found: Var) -> list[Var]:
        start = op.mul(i, ints(at_once))
        some = between(hidden, start, op.add(start, ints(at_once)))
        log_probs = cluster_log_probs(model, weights, some)[0]
        place = op.sub(row, start)
        here = op.and_(op.greater_or_equal(place, ints(0)), op.less(place, length(some)))
        local = op.where(here, place, ints(0))
        return [yes(), op.where(here, pick(log_probs, local, cluster), found)]

    parts = op.div(op.add(count(hidden), integer(at_once - 1)), integer(at_once))
    nothing = full(length(row), 0.0)
    return op.loop(parts, v_initial=[nothing], body=body)[0]


def _visited(
    level: LevelWeights, hidden: Var, row: Var, block: Var, position: Var, *, few: bool = False
) -> Var:
    def of_alike(call: Var) -> tuple[Var]:
        return (op.add(op.mul(call, integer(level.level.block_size or 0)), position),)

    def choose_of_alike(visit: Visit, place: Var) -> tuple[Var]:
        return (op.gather(vector(visit.log_probs), place),)

    def choose(visit: Visit, call: Var, position: Var) -> tuple[Var]:
        return (pick(visit.log_probs, call, position),)

    visit = partial(visit_blocks, level, hidden, row, block, few=few)
    if level.level.block_size is None:
        return visit(lambda call: (call, position), choose)[0]
    return visit(of_alike, choose_of_alike, types=(float,))[0]


def _at_once(level: LevelWeights, states: States, block: Var, position: Var) -> Var:
    """[P, 1, 1], of pairs with a state each."""
    return _chosen(logits_apart(level.gathered(block), states), position)


def _chosen(logits: Var, position: Var) -> Var:
    """logits [..., P, 1, K], position [P] -> the log-probability of one each, [..., P, 1, 1]."""
    *ones, _, _, _ = logits.unwrap_tensor().shape or ()
    at = op.reshape(position, ints(*(1 for _ in ones), -1, 1, 1))
    return op.gather_elements(op.log_softmax(logits), at, axis=-1)


def _sum(total: Var, terms: list[Var]) -> Var:
    for term in terms:
        total = op.add(total, term)
    return total
