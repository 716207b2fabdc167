"""The k best of several lists of candidates: (log p, target), in descending order."""

from collections.abc import Callable, Sequence

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import column, concat, integer, ints, length, positions, real


def merge(log_prob: Var, target: Var, k: Var) -> tuple[Var, Var]:
    """[m, candidates] -> the k best [m, k], ties by ascending target."""
    target, by_target = op.top_k(target, length(target, axis=1), largest=0)
    log_prob, best = op.top_k(op.gather_elements(log_prob, by_target, axis=1), k)
    return log_prob, op.gather_elements(target, best, axis=1)


def widen(x: Var, k: Var, value: float | int) -> Var:
    """[m, n <= k] -> [m, k], with `value` where there was nothing."""
    fill = real(value) if isinstance(value, float) else integer(value)
    return op.pad(x, concat(ints(0), op.sub(k, length(x, axis=1))), fill, ints(1))


def answer_anew(
    answer: Callable[[Var], Sequence[Var]], hidden: Var, rows: Var, answers: Sequence[Var]
) -> tuple[Var, ...]:
    """Replace the answers of some rows (bool [B]) by what `answer` says of their hidden state."""

    def replaced() -> list[Var]:
        row = positions(rows)
        return put(answers, row, answer(op.gather(hidden, row)))

    return tuple(op.if_(any_of(rows), then_branch=replaced, else_branch=lambda: answers))


def put(answers: Sequence[Var], row: Var, anew: Sequence[Var]) -> list[Var]:
    """The answers [B, ...] with those of rows [m] replaced by others, [m, ...]."""
    return [op.scatter_nd(old, column(row), new) for old, new in zip(answers, anew, strict=True)]


def any_of(rows: Var) -> Var:
    """Whether a bool vector, perhaps empty, holds a true."""
    return op.greater(length(positions(rows)), ints(0))
