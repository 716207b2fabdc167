"""From a graph's outputs to one record a row: columns over the scored rows, and flaws.

`exp` happens here and only here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array, Float64, Int64

from .bundle_info import BundleInfo
from .errors import RowError
from .graph_request import GraphRequest, GraphRunner, build_graph_request, outputs_by_name
from .row_batch import Bool, RowBatch, RowId
from .task import TargetShape, Task


@dataclass(frozen=True, slots=True)
class RaggedColumn:
    """A list for each row, one after another; a row that is not `listed` has one bare value."""

    values: Array
    counts: Int64
    listed: Bool


Column = Array | RaggedColumn


@dataclass(frozen=True, slots=True)
class RowResults:
    """What becomes of a chunk of rows.

    Attributes:
        scored: positions in the chunk of the rows that have values
        columns: each over the scored rows
        flaws: by position; scored and flaws together are all rows, once
    """

    lines: Sequence[int]
    ids: Sequence[RowId]
    scored: Int64
    columns: Mapping[str, Column]
    row_errors: Mapping[int, RowError]

    def __len__(self) -> int:
        return len(self.lines)


def without_errors(results: RowResults) -> RowResults:
    """The scored rows alone."""
    if not results.row_errors:
        return results
    kept = results.scored.tolist()
    lines, ids = ([of[i] for i in kept] for of in (results.lines, results.ids))
    return RowResults(lines, ids, np.arange(len(kept)), results.columns, {})


def score_rows(
    rows: RowBatch,
    task: Task,
    target_shape: TargetShape,
    bundle_info: BundleInfo,
    *,
    first_row: int,
    run: GraphRunner,
) -> RowResults:
    """Every row's record."""
    request = build_graph_request(rows, task, target_shape, first_row)
    return build_results(rows, task, bundle_info, request, [] if request is None else run(request))


def build_results(
    rows: RowBatch,
    task: Task,
    bundle_info: BundleInfo,
    request: GraphRequest | None,
    outputs: list[Array],
) -> RowResults:
    """Every row's record, of what `ask` asked, if anything, and the graph gave."""
    named_outputs = {} if request is None else outputs_by_name(outputs, request)
    row_errors = dict(rows.row_errors)
    if request is not None:
        for position in _not_numbers(request, named_outputs["log_prob"]):
            row_errors[position] = RowError(
                "inference_failed", "the graph gave a result that is no number"
            )
    scored = np.arange(len(rows))
    if row_errors:
        scored = np.delete(scored, list(row_errors))
    columns = (
        _columns(rows, task, bundle_info, scored, request, named_outputs) if len(scored) else {}
    )
    return RowResults(rows.lines, rows.ids, scored, columns, row_errors)


def _not_numbers(request: GraphRequest, log_prob: Array) -> list[int]:
    """Positions of the rows with NaN in their answer."""
    if not math.isnan(float(log_prob.min(initial=0))):
        return []
    bad = np.isnan(log_prob)
    of_row = (
        request.row[bad] if request.graph == "target_log_prob" else np.flatnonzero(bad.any(axis=1))
    )
    return [int(i) for i in np.unique(request.positions[of_row])]


def _columns(
    rows: RowBatch,
    task: Task,
    bundle_info: BundleInfo,
    scored: Int64,
    request: GraphRequest | None,
    outputs: Mapping[str, Array],
) -> dict[str, Column]:
    if task.name == "perplexity":
        return _perplexity(rows, task, scored, request, outputs)
    if task.name in ("target_log_prob", "probabilities") and (
        request is None or request.graph == "target_log_prob"
    ):
        return _paired(rows, task, scored, request, outputs)
    assert request is not None
    some = np.searchsorted(request.positions, scored)
    taken = {n: a if len(some) == len(a) else a[some] for n, a in outputs.items()}
    log_prob = np.minimum(taken["log_prob"], 0)
    match task.name:
        case "log_probs":
            return {"log_probs": log_prob}
        case "probabilities":
            return {"probabilities": _exp(log_prob)}
        case "sample":
            return _drawn(taken["target"], log_prob, bundle_info)
        case _:
            found = {"exact": taken["exact"], "blocks": taken["blocks"]}
            return {**_drawn(taken["target"], log_prob, bundle_info), **found}


def _paired(
    rows: RowBatch,
    task: Task,
    scored: Int64,
    request: GraphRequest | None,
    outputs: Mapping[str, Array],
) -> dict[str, Column]:
    """One value for each (row, target); rows with an empty list have an empty one."""
    counts, listed = rows.counts[scored], rows.listed[scored]
    values: Array = np.empty(0, dtype=np.float32)
    if request is not None:
        log_prob = outputs["log_prob"]
        if len(scored) < len(rows):
            log_prob = log_prob[np.isin(request.positions, scored)[request.row]]
        values = np.minimum(log_prob, 0)
    if task.name == "probabilities":
        values = _exp(values)
    column = RaggedColumn(values, counts, listed) if listed.any() else values
    return {"log_prob" if task.name == "target_log_prob" else "probabilities": column}


def _perplexity(
    rows: RowBatch,
    task: Task,
    scored: Int64,
    request: GraphRequest | None,
    outputs: Mapping[str, Array],
) -> dict[str, Column]:
    """Rows out of vocabulary have no log-probability: NaN, which every format writes as none."""
    full = np.full(len(rows), np.nan, dtype=np.float64)
    if request is not None:
        unit = 1.0 if task.log_base is None else math.log(task.log_base)
        full[request.positions] = np.minimum(outputs["log_prob"], 0, dtype=np.float64) / unit
    sequences = np.array([rows.sequences[i] for i in scored], dtype=object)
    oov = np.array([i in rows.oov for i in scored.tolist()], dtype=np.bool_)
    return {"sequence": sequences, "log_prob": full[scored].astype(np.float32), "oov": oov}


def _drawn(target: Array, log_prob: Array, bundle_info: BundleInfo) -> dict[str, Column]:
    """Targets of each row with labels and probabilities; a search cut short has fewer."""
    found = log_prob > -np.inf
    columns = {"targets": target, "probabilities": _exp(log_prob)}
    if bundle_info.labels is not None:
        columns = {"targets": target, "labels": bundle_info.label_array[target], **columns}
    if found.all():
        return dict(columns)
    counts, listed = found.sum(axis=1), np.ones(len(found), dtype=np.bool_)
    return {name: RaggedColumn(column[found], counts, listed) for name, column in columns.items()}


def _exp(log_prob: Array) -> Float64:
    """In float64: float32 loses what is less likely than 1e-38."""
    probabilities: Float64 = np.exp(log_prob, dtype=np.float64)
    return probabilities
