"""Turns a graph's outputs into one result for each row: columns of values, and row errors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array, BoolArray, Float32, Int64
from hsoftmax.models.probability import to_probability

from .bundle_info import BundleInfo
from .errors import RowError, RowsRefused
from .graph_request import (
    GraphRequest,
    GraphRunner,
    build_graph_request,
    needs_graph,
    outputs_by_name,
)
from .overflow import overflow_sentence, overflowed_rows
from .requirements import RowId
from .row_batch import RowBatch, fail_rows
from .task import TargetShape, Task, k_of, with_default_k, with_searched_k
from .threshold import count_above


@dataclass(frozen=True, slots=True)
class RaggedColumn:
    """A list for each row, in one flat array.

    Attributes:
        values: the lists one after another
        counts: [rows] the length of each list
        listed: [rows] True for a list; False for one plain value
    """

    values: Array
    counts: Int64
    listed: BoolArray


Column = Array | RaggedColumn


@dataclass(frozen=True, slots=True)
class RowResults:
    """The results of a batch of rows.

    Every row is either in `scored` or in `row_errors`.

    Attributes:
        scored: positions in the batch of the rows that have values
        columns: values by field, each over the scored rows
        row_errors: errors by position in the batch
    """

    lines: Sequence[int]
    ids: Sequence[RowId]
    scored: Int64
    columns: Mapping[str, Column]
    row_errors: Mapping[int, RowError]

    def __len__(self) -> int:
        return len(self.lines)


def without_errors(results: RowResults) -> RowResults:
    """Returns the scored rows only."""
    if not results.row_errors:
        return results
    kept = results.scored.tolist()
    lines, ids = ([values[i] for i in kept] for values in (results.lines, results.ids))
    return RowResults(lines, ids, np.arange(len(kept)), results.columns, {})


def score_rows(
    rows: RowBatch,
    task: Task,
    target_shape: TargetShape,
    bundle_info: BundleInfo,
    *,
    first_row: int,
    run_graph: GraphRunner,
) -> RowResults:
    """Scores a batch of rows; `first_row` is the number of its first row in the input.

    Rows that the runner refuses fail, and the others run again.
    """
    task = with_default_k(task, bundle_info)
    search = with_searched_k(task, bundle_info)
    while True:
        request = build_graph_request(rows, search, target_shape, first_row)
        try:
            outputs = _outputs(request, run_graph)
        except RowsRefused as refused:
            assert request is not None
            failed = {int(request.positions[i]): e for i, e in refused.row_errors.items()}
            if not failed.keys() - rows.row_errors.keys():
                raise  # it refuses rows that are not scored, so it would refuse them again
            rows = fail_rows(rows, failed)
        else:
            return build_results(rows, task, bundle_info, request, outputs)


def _outputs(request: GraphRequest | None, run_graph: GraphRunner) -> list[Array]:
    if request is None:
        return []
    return run_graph(request) if needs_graph(request) else [request.hidden]


def build_results(
    rows: RowBatch,
    task: Task,
    bundle_info: BundleInfo,
    request: GraphRequest | None,
    outputs: list[Array],
) -> RowResults:
    """Builds the results of a batch from the outputs of `request`, or of no request."""
    named_outputs = {} if request is None else outputs_by_name(outputs, request)
    row_errors = dict(rows.row_errors)
    if request is not None and needs_graph(request):
        row_errors |= _overflow_errors(request, named_outputs)
    scored = np.arange(len(rows))
    if row_errors:
        scored = np.delete(scored, list(row_errors))
    columns: dict[str, Column] = {}
    if len(scored):
        columns = _columns(rows, task, bundle_info, scored, request, named_outputs)
    return RowResults(rows.lines, rows.ids, scored, columns, row_errors)


def _overflow_errors(request: GraphRequest, outputs: Mapping[str, Array]) -> dict[int, RowError]:
    """Returns the errors of the rows that have a result that is not finite, by position."""
    # A search that was cut short has -inf for the targets that it did not find.
    absent = ~outputs["exact"][:, None] if request.graph == "top_k" else None
    row = request.row if request.graph == "target_log_prob" else None
    bad_rows = overflowed_rows(outputs["log_prob"], request.hidden, row=row, absent=absent)
    return {int(request.positions[i]): _overflow_error(request.hidden[i]) for i in bad_rows}


def _overflow_error(inputs: Float32) -> RowError:
    sentence = overflow_sentence(inputs)
    if sentence is None:
        return RowError("inference_failed", "the graph gave a result that is no finite number")
    return RowError("logits_overflow", f"input: {sentence}")


def _columns(
    rows: RowBatch,
    task: Task,
    bundle_info: BundleInfo,
    scored: Int64,
    request: GraphRequest | None,
    outputs: Mapping[str, Array],
) -> dict[str, Column]:
    if task.name == "perplexity":
        return _perplexity_columns(rows, task, scored, request, outputs, bundle_info.max_log_prob)
    if task.name in ("target_log_prob", "probabilities") and (
        request is None or request.graph == "target_log_prob"
    ):
        return _pair_columns(rows, task, scored, request, outputs, bundle_info.max_log_prob)
    assert request is not None
    kept = np.searchsorted(request.positions, scored)
    of_scored = {n: a if len(kept) == len(a) else a[kept] for n, a in outputs.items()}
    if task.name == "hidden":
        return dict(of_scored)
    log_prob = np.minimum(of_scored["log_prob"], bundle_info.max_log_prob)
    match task.name:
        case "log_probs":
            return {"log_probs": log_prob}
        case "probabilities":
            return {"probabilities": to_probability(log_prob)}
        case "sample":
            return _target_columns(of_scored["target"], log_prob, bundle_info)
        case _:
            return _top_k_columns(of_scored, log_prob, task, bundle_info)


def _top_k_columns(
    of_scored: Mapping[str, Array], log_prob: Array, task: Task, bundle_info: BundleInfo
) -> dict[str, Column]:
    """Returns the columns of `top_k`; `truncated` only with a threshold."""
    search: dict[str, Column] = {"exact": of_scored["exact"], "blocks": of_scored["blocks"]}
    if task.threshold is None:
        return {**_target_columns(of_scored["target"], log_prob, bundle_info), **search}
    k, above = k_of(task, bundle_info), count_above(log_prob, task.threshold)
    kept = np.minimum(above, k)
    targets = _target_columns(of_scored["target"], log_prob, bundle_info, kept)
    return {**targets, **search, "truncated": above > k}


def _pair_columns(
    rows: RowBatch,
    task: Task,
    scored: Int64,
    request: GraphRequest | None,
    outputs: Mapping[str, Array],
    max_log_prob: float,
) -> dict[str, Column]:
    """Returns one value for each (row, target). A row with an empty list gets an empty list."""
    counts, listed = rows.counts[scored], rows.listed[scored]
    values: Array = np.empty(0, dtype=np.float32)
    if request is not None:
        log_prob = outputs["log_prob"]
        if len(scored) < len(rows):
            log_prob = log_prob[np.isin(request.positions, scored)[request.row]]
        values = np.minimum(log_prob, max_log_prob)
    if task.name == "probabilities":
        values = to_probability(values)
    column = RaggedColumn(values, counts, listed) if listed.any() else values
    return {"log_prob" if task.name == "target_log_prob" else "probabilities": column}


def _perplexity_columns(
    rows: RowBatch,
    task: Task,
    scored: Int64,
    request: GraphRequest | None,
    outputs: Mapping[str, Array],
    max_log_prob: float,
) -> dict[str, Column]:
    """Returns the columns of `perplexity`.

    A row out of vocabulary has no log-probability: NaN here, which every format writes as none.
    """
    log_prob = np.full(len(rows), np.nan, dtype=np.float64)
    if request is not None:
        unit = 1.0 if task.log_base is None else math.log(task.log_base)
        limited = np.minimum(outputs["log_prob"], max_log_prob, dtype=np.float64)
        log_prob[request.positions] = limited / unit
    sequences = np.array([rows.sequences[i] for i in scored], dtype=object)
    oov = np.array([i in rows.oov for i in scored.tolist()], dtype=np.bool_)
    return {"sequence": sequences, "log_prob": log_prob[scored].astype(np.float32), "oov": oov}


def _target_columns(
    target: Array, log_prob: Array, bundle_info: BundleInfo, counts: Int64 | None = None
) -> dict[str, Column]:
    """Returns each row's targets with labels and probabilities; only the first `counts` of them.

    A search that `max_blocks` cut short has fewer targets; the log-probability of the rest is
    -inf.
    """
    present = log_prob > -np.inf
    if counts is not None:
        present &= np.arange(log_prob.shape[1]) < counts[:, None]
    columns = {"targets": target, "probabilities": to_probability(log_prob)}
    if bundle_info.labels is not None:
        columns = {"targets": target, "labels": bundle_info.label_array[target], **columns}
    if counts is None and present.all():
        return dict(columns)
    counts, listed = present.sum(axis=1), np.ones(len(present), dtype=np.bool_)
    return {name: RaggedColumn(column[present], counts, listed) for name, column in columns.items()}
