"""Rows whose results are not finite are found; with huge numbers they are told as an overflow."""

import json

import numpy as np
import pytest

from hsoftmax.scoring import Task, row_requirements, score_rows
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.ndjson import RowDecoder
from hsoftmax.scoring.overflow import overflow_sentence, overflowed_rows

from .conftest import HIDDEN, make_rows

NAN, INF = float("nan"), float("inf")
HUGE = np.full((5, 2), 1e30, dtype=np.float32)


def test_rows_are_found_by_any_result_that_is_not_finite():
    log_probs = np.zeros((5, 30), dtype=np.float32)
    assert overflowed_rows(log_probs, HUGE).tolist() == []
    log_probs[1, 29], log_probs[3, 0], log_probs[4, 7] = NAN, -INF, INF
    assert overflowed_rows(log_probs, HUGE).tolist() == [1, 3, 4]
    assert overflowed_rows(log_probs, HUGE, absent=np.True_).tolist() == [1, 4]


def test_rows_of_pairs_are_found_once():
    log_prob = np.array([0, NAN, -INF, -1], dtype=np.float32)
    assert overflowed_rows(log_prob, HUGE, row=np.array([0, 2, 2, 3])).tolist() == [2]


def test_a_search_that_was_cut_short_is_no_overflow():
    log_prob = np.array([[-1, -INF], [-1, -INF]], dtype=np.float32)
    exact = np.array([False, True])
    assert overflowed_rows(log_prob, HUGE[:2], absent=~exact[:, None]).tolist() == [1]


def test_a_target_that_weights_forbid_is_no_overflow():
    inputs = np.concatenate([HUGE[:1], np.ones((3, 2), dtype=np.float32)])
    log_probs = np.zeros((4, 30), dtype=np.float32)
    log_probs[:2, 7], log_probs[2, 7] = -INF, NAN
    assert overflowed_rows(log_probs, inputs).tolist() == [0, 2]
    pairs = np.array([-INF, -INF, NAN], dtype=np.float32)
    assert overflowed_rows(pairs, inputs, row=np.array([0, 1, 3])).tolist() == [0, 3]


def test_only_huge_numbers_are_to_blame():
    assert overflow_sentence(np.full(3, 1e9, dtype=np.float32)) is None
    sentence = overflow_sentence(np.array([0, -2e38], dtype=np.float32))
    assert sentence is not None
    assert "overflow with numbers up to 2e+38: scale the row" in sentence


@pytest.mark.parametrize(
    "task", ["target_log_prob", "probabilities", "log_probs", "top_k", "sample", "perplexity"]
)
def test_an_overflow_is_the_error_of_its_row(bundle_info, reference, task):
    def run_with_overflow(request):
        outputs = reference(request)
        log_prob = next(output for output in outputs if output.dtype.kind == "f")
        log_prob[2] = NAN
        return outputs

    rows = make_rows(4)
    rows[2]["input"] = [3e38] * HIDDEN
    lines = [json.dumps(row).encode() for row in rows]
    spec = Task(task, k=3)
    batch = RowDecoder(Columns()).decode(lines, 1, row_requirements(spec, False, bundle_info))
    results = score_rows(batch, spec, "one", bundle_info, first_row=0, run_graph=run_with_overflow)
    assert results.scored.tolist() == [0, 1, 3]
    (error,) = results.row_errors.values()
    assert error.code == "logits_overflow"
    assert str(error).startswith("input: expected numbers whose logits are within float32")
