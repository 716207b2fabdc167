"""From rows to records: the records of every task against the NumPy reference."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from hsoftmax import models
from hsoftmax.scoring import (
    CallError,
    ErrorCode,
    Tally,
    Task,
    row_requirements,
    score_rows,
    tally_sequences,
)
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.ndjson import RowDecoder, encode
from hsoftmax.scoring.formats.record_schema import RecordSchema
from hsoftmax.scoring.task import check_task, record_fields, with_default_k

from .conftest import HIDDEN, LABELS, TARGETS, make_rows

HIERARCHICAL = models.hierarchical_softmax


@pytest.fixture
def results(bundle_info, reference):
    """Returns a function from rows (dictionaries or lines) to the records of a task."""

    def results(rows, task: Task, target_shape="one"):
        lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
        batch = RowDecoder(Columns()).decode(
            lines, 1, row_requirements(task, target_shape == "none", bundle_info)
        )
        scored = score_rows(
            batch, task, target_shape, bundle_info, first_row=0, run_graph=reference
        )
        record_schema = RecordSchema(
            record_fields(task, target_shape, bundle_info), "string", TARGETS
        )
        return [json.loads(line) for line in encode(scored, record_schema).splitlines()]

    return results


def hidden(rows) -> np.ndarray:
    return np.array([row["input"] for row in rows], dtype=np.float32)


def test_target_log_prob_equals_the_reference(results, model):
    rows = make_rows(5)
    full = HIERARCHICAL.log_probs(model, hidden(rows))
    for i, got in enumerate(results(rows, Task("target_log_prob"))):
        assert got == {"id": i, "log_prob": pytest.approx(full[i, rows[i]["target"]])}


def test_a_row_with_targets_gets_a_list_of_any_length(results, model):
    rows = make_rows(3)
    for row, targets in zip(rows, ([3, "étoile"], [0], []), strict=True):
        del row["target"]
        row["targets"] = targets
    full = HIERARCHICAL.log_probs(model, hidden(rows))
    got = [record["log_prob"] for record in results(rows, Task("target_log_prob"), "many")]
    assert got == [pytest.approx([full[0, 3], full[0, TARGETS - 1]]),
                   [pytest.approx(full[1, 0])], []]  # fmt: skip


def test_rows_may_mix_target_and_targets(results):
    one, many = make_rows(2)
    many["targets"] = [many.pop("target")]
    first, second = results([one, many], Task("target_log_prob"))
    assert isinstance(first["log_prob"], float)
    assert isinstance(second["log_prob"], list)


def test_probabilities_are_linear(results, model):
    rows = make_rows(4)
    probs = np.exp(HIERARCHICAL.log_probs(model, hidden(rows)))
    got = [record["probabilities"] for record in results(rows, Task("probabilities"))]
    assert got == pytest.approx([probs[i, row["target"]] for i, row in enumerate(rows)])
    for row in rows:
        del row["target"]
    got = [record["probabilities"] for record in results(rows, Task("probabilities"), "none")]
    np.testing.assert_allclose(got, probs, rtol=1e-5)


def test_log_probs_are_the_full_distribution(results, model):
    rows = make_rows(2)
    got = [record["log_probs"] for record in results(rows, Task("log_probs"), "none")]
    np.testing.assert_allclose(got, HIERARCHICAL.log_probs(model, hidden(rows)), rtol=1e-5)


def test_top_k_is_descending_with_labels(results, model):
    rows = make_rows(3)
    best, target = HIERARCHICAL.top_k(model, hidden(rows), 4)
    for i, got in enumerate(results(rows, Task("top_k", k=4), "none")):
        assert got["targets"] == target[i].tolist()
        assert got["labels"] == [LABELS[t] for t in target[i]]
        assert got["probabilities"] == pytest.approx(np.exp(best[i]))
        assert got["exact"] is True


@pytest.mark.parametrize("num_targets", [TARGETS, 10, 9, 1])
def test_k_is_ten_by_default_or_all_targets_if_there_are_fewer(bundle_info, num_targets):
    few = replace(bundle_info, num_targets=num_targets, labels=None)
    check_task(Task("top_k"), "none", few)
    assert with_default_k(Task("top_k"), few) == Task("top_k", k=min(10, num_targets))
    assert with_default_k(Task("top_k", k=1), few) == Task("top_k", k=1)
    # The identity of jobs that older versions began has this k.
    assert with_default_k(Task("log_probs"), few) == Task("log_probs", k=10)


def test_the_default_k_scores_rows(results):
    (record,) = results(make_rows(1), Task("top_k"), "none")
    assert len(record["targets"]) == 10


def test_an_inexact_search_returns_fewer_targets(bundle_info, reference):
    def run_truncated(request):
        log_prob, target, blocks, exact = reference(request)
        log_prob[0, 2:], exact[0] = -np.inf, False
        return [log_prob, target, blocks, exact]

    rows = [json.dumps(row).encode() for row in make_rows(2)]
    task = Task("top_k", k=3, max_blocks=1)
    batch = RowDecoder(Columns()).decode(rows, 1, row_requirements(task, True, bundle_info))
    results = score_rows(batch, task, "none", bundle_info, first_row=0, run_graph=run_truncated)
    record_schema = RecordSchema(record_fields(task, "none", bundle_info), "string", 3)
    got = [json.loads(line) for line in encode(results, record_schema).splitlines()]
    assert [len(record["targets"]) for record in got] == [2, 3]
    assert [len(record["labels"]) for record in got] == [2, 3]


def test_draws_do_not_depend_on_errors_in_other_rows(results):
    rows = make_rows(6)
    task = Task("sample", num_samples=3, seed=7)
    clean = results(rows, task, "none")
    with_error = results([rows[0], b"{", *rows[2:]], task, "none")
    assert with_error[1]["code"] == "invalid_json"
    assert [r for i, r in enumerate(with_error) if i != 1] == [
        r for i, r in enumerate(clean) if i != 1
    ]
    assert clean != results(rows, Task("sample", num_samples=3, seed=8), "none")


INVALID = {
    b"": ("invalid_json", "got a blank line", None),
    b"{": ("invalid_json", "expected JSON", None),
    b"\xff": ("invalid_json", "expected JSON", None),
    b"[1, 2]": ("invalid_query", "expected an object, got a list", None),
    b'{"id": 7}': ("invalid_query", "input: expected a value, got none", 7),
    b'{"id": 7, "input": "x", "target": 1}': ("invalid_query", "got text: words takes no", 7),
    b'{"id": 7, "input": [1], "target": 1}': ("invalid_query", "expected 6 numbers, got 1", 7),
    b'{"id": 7, "input": [1,2,3,4,5,"6"], "target": 1}': ("invalid_query", "expected a number", 7),
    b'{"id": 7, "input": [1,2,3,4,5,NaN], "target": 1}': ("invalid_query", "NaN", 7),
    b'{"id": 7, "input": [1,2,3,4,5,1e39], "target": 1}': ("invalid_query", "position 5", 7),
    b'{"id": 7, "input": [1,2,3,4,5,1e999], "target": 1}': ("invalid_query", "", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6]}': ("invalid_query", "target: expected a value", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "target": 11}': ("target_out_of_range", "0 to 10, got 11",
                                                         7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "target": -1}': ("target_out_of_range", "got -1", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "target": 1.5}': ("invalid_query", "target: expected", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "target": true}': ("invalid_query", "target: expected", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "target": "no"}': ("unknown_label", "no label 'no'", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "targets": [1, 99]}': ("target_out_of_range", "got 99", 7),
    b'{"id": 7, "input": [1,2,3,4,5,6], "target": 1, "targets": [1]}': ("invalid_query", "both", 7),
    b'{"id": 1e3, "input": [1,2,3,4,5,6], "target": 1}': ("invalid_query", "id: expected", None),
    b'{"id": ' + b"9" * 40 + b', "input": [1,2,3,4,5,6], "target": 1}': ("invalid_query", "", None),
    b'{"id": "\\ud800", "input": [1,2,3,4,5,6], "target": 1}': ("invalid_json", "", None),
    b'{"id": 7, "input": ' + b"[" * 3000: ("invalid_json", "", None),
}  # fmt: skip


@pytest.mark.parametrize("line", INVALID, ids=lambda line: line[:60].decode("latin-1"))
def test_an_invalid_row_becomes_an_error_in_its_place(results, line):
    code, message, id = INVALID[line]
    before, after = make_rows(2)
    got = results([before, line, after], Task("target_log_prob"))
    good = results([before, after], Task("target_log_prob"))
    assert [got[0], got[2]] == good
    assert (got[1]["line"], got[1]["id"], got[1]["code"]) == (2, id, code)
    assert message in got[1]["error"]
    assert set(got[1]) == {"line", "id", "error", "code"}


def test_a_nan_result_fails_only_its_row(bundle_info, reference):
    def run_with_nan(request):
        (log_prob,) = reference(request)
        log_prob[1] = np.nan
        return [log_prob]

    lines = [json.dumps(row).encode() for row in make_rows(3)]
    task = Task("target_log_prob")
    batch = RowDecoder(Columns()).decode(lines, 1, row_requirements(task, False, bundle_info))
    results = score_rows(batch, task, "one", bundle_info, first_row=0, run_graph=run_with_nan)
    assert {i: row_error.code for i, row_error in results.row_errors.items()} == {
        1: "inference_failed"
    }
    assert results.scored.tolist() == [0, 2]


@pytest.mark.parametrize("oov", ["error", "exclude"])
def test_perplexity_by_sequence_with_a_label_out_of_vocabulary(bundle_info, reference, model, oov):
    rows = make_rows(6)
    rows[1]["target"] = "unheard"
    task = Task("perplexity", oov=oov)
    lines = [json.dumps(row).encode() for row in rows]
    batch = RowDecoder(Columns()).decode(lines, 1, row_requirements(task, False, bundle_info))
    results = score_rows(batch, task, "one", bundle_info, first_row=0, run_graph=reference)
    tallies = tally_sequences(batch, results, None)
    full = HIERARCHICAL.log_probs(model, hidden(rows))
    log_prob = [full[i, rows[i]["target"]] for i in (0, 2, 3, 4, 5)]
    assert list(tallies) == ["s0", "s1"]
    assert (tallies["s0"].oov, tallies["s0"].failed) == ((1, 0) if oov == "exclude" else (0, 1))
    assert (tallies["s0"].words, tallies["s1"].words) == (2, 3)
    assert tallies["s0"].log_prob == pytest.approx(sum(log_prob[:2]))
    total = tallies["s0"] + tallies["s1"]
    assert total.perplexity == pytest.approx(math.exp(-sum(log_prob) / 5))
    assert total.report(2.0)["log_prob"] == pytest.approx(sum(log_prob) / math.log(2))
    assert total.report(2.0)["perplexity"] == total.perplexity


def test_without_words_there_is_no_perplexity():
    assert Tally(oov=3).perplexity is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("top_k", k=12), "k: expected 1 to 11, got 12"),
        (Task("sample", num_samples=0), "num_samples: expected 1"),
        (Task("perplexity", log_base=1.0), "log_base: expected a positive number"),
    ],
)
def test_invalid_task_parameters_are_refused(bundle_info, task, message):
    with pytest.raises(CallError, match=message):
        check_task(task, "none", bundle_info)


def test_error_codes_exist_in_the_service():
    text = (Path(__file__).parents[2] / "service" / "errors.py").read_text()
    assert set(get_args(ErrorCode)) <= set(re.findall(r'code ?= ?"(\w+)"', text))


def test_a_row_wider_than_the_bundle_is_an_error(results):
    row = make_rows(1)[0]
    row["input"] = [*row["input"], 1.0]
    (got,) = results([row], Task("target_log_prob"))
    assert got["error"] == f"input: expected {HIDDEN} numbers, got {HIDDEN + 1}"


def test_seeds_are_those_that_json_clients_read_exactly(bundle_info):
    check_task(Task("sample", seed=2**53 - 1), "none", bundle_info)
    with pytest.raises(CallError, match=f"seed: expected 0 to {2**53 - 1}, got {2**53}"):
        check_task(Task("sample", seed=2**53), "none", bundle_info)
