"""From a graph's outputs to one record a row: columns over the scored rows, and flaws.

`exp` happens here and only here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array, Float64, Int64

from .bundle_info import Facts
from .errors import Flaw
from .graph_request import Asked, Run, ask, by_name
from .row_batch import Bool, Id, Rows
from .task import Form, Task


@dataclass(frozen=True, slots=True)
class Ragged:
    """A list for each row, one after another; a row that is not `listed` has one bare value."""

    values: Array
    counts: Int64
    listed: Bool


Column = Array | Ragged


@dataclass(frozen=True, slots=True)
class Records:
    """What becomes of a chunk of rows.

    Attributes:
        scored: positions in the chunk of the rows that have values
        columns: each over the scored rows
        flaws: by position; scored and flaws together are all rows, once
    """

    lines: Sequence[int]
    ids: Sequence[Id]
    scored: Int64
    columns: Mapping[str, Column]
    flaws: Mapping[int, Flaw]

    def __len__(self) -> int:
        return len(self.lines)


def without_flaws(records: Records) -> Records:
    """The scored rows alone."""
    if not records.flaws:
        return records
    kept = records.scored.tolist()
    lines, ids = ([of[i] for i in kept] for of in (records.lines, records.ids))
    return Records(lines, ids, np.arange(len(kept)), records.columns, {})


def score(rows: Rows, task: Task, form: Form, facts: Facts, *, first_row: int, run: Run) -> Records:
    """Every row's record."""
    asked = ask(rows, task, form, first_row)
    return answered(rows, task, facts, asked, [] if asked is None else run(asked))


def answered(
    rows: Rows, task: Task, facts: Facts, asked: Asked | None, outputs: list[Array]
) -> Records:
    """Every row's record, of what `ask` asked, if anything, and the graph gave."""
    named = {} if asked is None else by_name(outputs, asked)
    flaws = dict(rows.flaws)
    if asked is not None:
        for position in _not_numbers(asked, named["log_prob"]):
            flaws[position] = Flaw("inference_failed", "the graph gave a result that is no number")
    scored = np.arange(len(rows))
    if flaws:
        scored = np.delete(scored, list(flaws))
    columns = _columns(rows, task, facts, scored, asked, named) if len(scored) else {}
    return Records(rows.lines, rows.ids, scored, columns, flaws)


def _not_numbers(asked: Asked, log_prob: Array) -> list[int]:
    """Positions of the rows with NaN in their answer."""
    if not math.isnan(float(log_prob.min(initial=0))):
        return []
    bad = np.isnan(log_prob)
    of_row = asked.row[bad] if asked.graph == "target_log_prob" else np.flatnonzero(bad.any(axis=1))
    return [int(i) for i in np.unique(asked.positions[of_row])]


def _columns(
    rows: Rows,
    task: Task,
    facts: Facts,
    scored: Int64,
    asked: Asked | None,
    outputs: Mapping[str, Array],
) -> dict[str, Column]:
    if task.name == "perplexity":
        return _perplexity(rows, task, scored, asked, outputs)
    if task.name in ("target_log_prob", "probabilities") and (
        asked is None or asked.graph == "target_log_prob"
    ):
        return _paired(rows, task, scored, asked, outputs)
    assert asked is not None
    some = np.searchsorted(asked.positions, scored)
    taken = {n: a if len(some) == len(a) else a[some] for n, a in outputs.items()}
    log_prob = np.minimum(taken["log_prob"], 0)
    match task.name:
        case "log_probs":
            return {"log_probs": log_prob}
        case "probabilities":
            return {"probabilities": _exp(log_prob)}
        case "sample":
            return _drawn(taken["target"], log_prob, facts)
        case _:
            found = {"exact": taken["exact"], "blocks": taken["blocks"]}
            return {**_drawn(taken["target"], log_prob, facts), **found}


def _paired(
    rows: Rows, task: Task, scored: Int64, asked: Asked | None, outputs: Mapping[str, Array]
) -> dict[str, Column]:
    """One value for each (row, target); rows with an empty list have an empty one."""
    counts, listed = rows.counts[scored], rows.listed[scored]
    values: Array = np.empty(0, dtype=np.float32)
    if asked is not None:
        log_prob = outputs["log_prob"]
        if len(scored) < len(rows):
            log_prob = log_prob[np.isin(asked.positions, scored)[asked.row]]
        values = np.minimum(log_prob, 0)
    if task.name == "probabilities":
        values = _exp(values)
    column = Ragged(values, counts, listed) if listed.any() else values
    return {"log_prob" if task.name == "target_log_prob" else "probabilities": column}


def _perplexity(
    rows: Rows, task: Task, scored: Int64, asked: Asked | None, outputs: Mapping[str, Array]
) -> dict[str, Column]:
    """Rows out of vocabulary have no log-probability: NaN, which every format writes as none."""
    full = np.full(len(rows), np.nan, dtype=np.float64)
    if asked is not None:
        unit = 1.0 if task.log_base is None else math.log(task.log_base)
        full[asked.positions] = np.minimum(outputs["log_prob"], 0, dtype=np.float64) / unit
    sequences = np.array([rows.sequences[i] for i in scored], dtype=object)
    oov = np.array([i in rows.oov for i in scored.tolist()], dtype=np.bool_)
    return {"sequence": sequences, "log_prob": full[scored].astype(np.float32), "oov": oov}


def _drawn(target: Array, log_prob: Array, facts: Facts) -> dict[str, Column]:
    """Targets of each row with labels and probabilities; a search cut short has fewer."""
    found = log_prob > -np.inf
    columns = {"targets": target, "probabilities": _exp(log_prob)}
    if facts.labels is not None:
        columns = {"targets": target, "labels": facts.label_array[target], **columns}
    if found.all():
        return dict(columns)
    counts, listed = found.sum(axis=1), np.ones(len(found), dtype=np.bool_)
    return {name: Ragged(column[found], counts, listed) for name, column in columns.items()}


def _exp(log_prob: Array) -> Float64:
    """In float64: float32 loses what is less likely than 1e-38."""
    probabilities: Float64 = np.exp(log_prob, dtype=np.float64)
    return probabilities
