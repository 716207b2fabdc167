"""One round of top_k on CUDA: it opens blocks and merges their best targets with those before.

`B` rows each open up to `m` blocks in a round. All numbers of a round that graphs read on the host
(k_in, k_new, width, k) are inputs, so that none is computed on the device and copied back.

Ties go to the lower target. Within a block the lower position comes first, and TopK keeps the order
of equal values, so the blocks of a row come in the order of their targets. Where targets stand in
any order (`any_order`), positions are put in the order of targets, and all candidates are sorted by
target.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.exporter.graphs.ops import integer, ints, real

from .blocks import Vars, floats, indices, local_log_probs


def top_k(*, any_order: bool) -> tuple[Vars, Vars]:
    """Return the k best targets of each row so far, and whether no other block can improve them.

    place [B, m]        which of the D * R calls opens row b's j-th block
    bound [B, m]        log p of that block, -inf where a row opens fewer
    first [B, m]        first row of that block in the level
    rest_bound [B]      log p of the best block that the row has not opened
    best_log_prob, best_target [B, k]   of the rounds before
    k_in [1]            of each call: min(k, K)
    calls [2]           -1, k_in
    k_new, width, k [1] of the new candidates min(k, m * k_in); of both, k + k_new; of the result
    no_target [1]       the target of a candidate without one: num_targets
    """
    inputs, local = local_log_probs()
    inputs |= {
        "allowed": floats("D1", 1, "K1"),
        "place": indices("B", "m"), "bound": floats("B", "m"), "first": indices("B", "m"),
        "rest_bound": floats("B"),
        "best_log_prob": floats("B", "k"), "best_target": indices("B", "k"),
        "k_in": indices(1), "calls": indices(2), "k_new": indices(1), "width": indices(1),
        "k": indices(1), "no_target": indices(1),
    }  # fmt: skip
    if any_order:
        inputs |= {
            "order": indices("D", 1, "K"), "zeros": indices(1, "R", 1), "row_target": indices("N"),
            "all_new": indices(1),
        }  # fmt: skip
    log_prob, row = _candidates(op.add(local, inputs["allowed"]), inputs, any_order=any_order)
    log_prob, target = _with_targets(log_prob, row, inputs, any_order=any_order)
    log_prob, target = _best(log_prob, target, inputs["k_new"])
    log_prob, target = _merged(log_prob, target, inputs)
    kth = op.squeeze(op.gather(log_prob, ints(-1), axis=1), ints(1))
    proven = op.greater(kth, inputs["rest_bound"])
    return inputs, {"log_prob": log_prob, "target": target, "proven": proven}


def _candidates(local: Var, inputs: Vars, *, any_order: bool) -> tuple[Var, Var]:
    """Return (log p, row of the level), [B, m * k_in]: the best of the blocks of each row."""
    if any_order:
        order = op.add(inputs["order"], inputs["zeros"])
        best, at = op.top_k(op.gather_elements(local, order, axis=2), inputs["k_in"])
        position = op.gather_elements(order, at, axis=2)
    else:
        best, position = op.top_k(local, inputs["k_in"])
    log_prob = _of_calls(best, inputs, op.unsqueeze(inputs["bound"], ints(2)))
    row = _of_calls(position, inputs, op.unsqueeze(inputs["first"], ints(2)))
    return log_prob, row


def _of_calls(values: Var, inputs: Vars, base: Var) -> Var:
    """values [D, R, k_in] -> base [B, m, 1] + the values of each row's calls, [B, m * k_in]."""
    calls = op.gather(op.reshape(values, inputs["calls"]), inputs["place"])
    return op.reshape(op.add(calls, base), ints(0, -1))


def _with_targets(log_prob: Var, row: Var, inputs: Vars, *, any_order: bool) -> tuple[Var, Var]:
    is_none = op.equal(log_prob, real(-np.inf))
    if not any_order:
        return log_prob, op.where(is_none, inputs["no_target"], row)
    safe = op.where(is_none, integer(0), row)
    target = op.where(is_none, inputs["no_target"], op.gather(inputs["row_target"], safe))
    return _by_target(log_prob, target, inputs["all_new"])


def _merged(log_prob: Var, target: Var, inputs: Vars) -> tuple[Var, Var]:
    log_prob = op.concat([inputs["best_log_prob"], log_prob], axis=1)
    target = op.concat([inputs["best_target"], target], axis=1)
    return _best(*_by_target(log_prob, target, inputs["width"]), inputs["k"])


def _by_target(log_prob: Var, target: Var, width: Var) -> tuple[Var, Var]:
    target, order = op.top_k(target, width, largest=0)
    return op.gather_elements(log_prob, order, axis=1), target


def _best(log_prob: Var, target: Var, k: Var) -> tuple[Var, Var]:
    log_prob, order = op.top_k(log_prob, k)
    return log_prob, op.gather_elements(target, order, axis=1)
