"""A threshold keeps exactly the likeliest targets above it, at most k, in every kind of record."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax import exporter, models
from hsoftmax.cli import run
from hsoftmax.models.ranking import top_k_of
from hsoftmax.scoring import CallError, Task, row_requirements, score_rows
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.ndjson import RowDecoder
from hsoftmax.scoring.job.spec import expect_same_job
from hsoftmax.scoring.task import check_task, record_fields, searched_k, values_per_row
from hsoftmax.scoring.threshold import count_above, searched_targets

from .conftest import LABELS, TARGETS, make_model, make_rows

REFERENCE = models.hierarchical_softmax


def test_a_target_at_the_threshold_is_not_above_it():
    log_prob = np.log(np.array([[0.5, 0.25, 0.125]]))
    assert count_above(log_prob, 0.25).tolist() == [1]
    found_one = np.array([[math.log(0.5), -math.inf, -math.inf]])
    assert count_above(found_one, None).tolist() == [1]


@given(
    logits=st.lists(st.floats(-9, 9), min_size=1, max_size=40),
    k=st.integers(1, 40),
    threshold=st.floats(0, 1),
)
def test_the_search_finds_every_target_above_the_threshold(logits, k, threshold):
    z = np.array([logits])
    log_probs = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    num_targets, k = len(logits), min(k, len(logits))
    searched = searched_targets(k, threshold, num_targets)
    assert 1 <= searched <= min(k + 1, num_targets)
    log_prob, _ = top_k_of(log_probs, searched)
    (found,) = count_above(log_prob, threshold)
    expected = int((log_probs > (math.log(threshold) if threshold else -math.inf)).sum())
    assert min(found, k) == min(expected, k)
    assert (found > k) == (expected > k)


@pytest.mark.parametrize(
    ("k", "threshold", "num_targets", "searched"),
    [
        (10, None, 1000, 10),
        (10, 0.0, 1000, 11),
        (10, 0.0, 10, 10),
        (10, 0.3, 1000, 3),
        (1, 0.3, 1000, 2),
        (10, 0.9, 1000, 1),
        (10, 1.0, 1000, 1),
        (1000, 0.01, 1000, 100),
        (5, 5e-324, 1000, 6),
    ],
)
def test_a_search_is_no_larger_than_it_must_be(k, threshold, num_targets, searched):
    assert searched_targets(k, threshold, num_targets) == searched


def test_scores_that_may_exceed_one_are_searched_to_k():
    assert searched_targets(10, 0.9, 1000, math.inf) == 11


def test_the_size_of_a_record_is_bounded_by_the_threshold(bundle_info):
    many = replace(bundle_info, num_targets=10**6, labels=None)
    task = Task("top_k", k=10**6, threshold=0.01)
    assert searched_k(task, many) == 100
    assert values_per_row(task, "none", many) == 200


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_is_a_probability(bundle_info, threshold):
    with pytest.raises(CallError, match="threshold: expected 0 to 1, got"):
        check_task(Task("top_k", threshold=threshold), "none", bundle_info)


@pytest.fixture
def columns(bundle_info, reference):
    """Function from a task to the columns of three rows."""

    def columns(task: Task):
        lines = [json.dumps(row).encode() for row in make_rows(3)]
        requirements = row_requirements(task, True, bundle_info)
        batch = RowDecoder(Columns()).decode(lines, 1, requirements)
        return score_rows(batch, task, "none", bundle_info, first_row=0, run_graph=reference)

    return columns


@pytest.mark.parametrize("k", [1, 3, TARGETS])
@pytest.mark.parametrize("threshold", [0, 1e-3, 0.05, 0.2, 0.6, 1])
def test_records_have_the_targets_above(columns, model, k, threshold):
    hidden = np.array([row["input"] for row in make_rows(3)], dtype=np.float32)
    probs = np.exp(REFERENCE.log_probs(model, hidden))
    got = columns(Task("top_k", k=k, threshold=threshold)).columns
    first = 0
    for i, row in enumerate(probs):
        order = [t for t in np.argsort(-row, kind="stable") if row[t] > threshold]
        count = int(got["targets"].counts[i])
        assert got["targets"].values[first : first + count].tolist() == order[:k]
        labels = got["labels"].values[first : first + count].tolist()
        assert labels == [LABELS[t] for t in order[:k]]
        assert got["truncated"][i] == (len(order) > k)
        first += count


def test_only_a_threshold_adds_a_field(columns, bundle_info):
    assert "truncated" not in columns(Task("top_k", k=2)).columns
    with_field = record_fields(Task("top_k", threshold=0.5), "none", bundle_info)
    assert with_field[-1].name == "truncated"


@pytest.mark.parametrize("format", ["ndjson", "csv", "parquet", "arrow", "npy"])
def test_score_writes_every_format(exported_words, tmp_path, model, format):
    rows = make_rows(5)
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / f"out.{format}"
    arguments = ["score", str(exported_words), str(tmp_path / "in.ndjson"), str(output)]
    options = ["--task", "top_k", "--k", "3", "--threshold", "0.1"]
    assert run([*arguments, *options]) == 0
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    probs = np.exp(REFERENCE.log_probs(model, hidden))
    expected = [
        [t for t in np.argsort(-row, kind="stable").tolist() if row[t] > 0.1][:3] for row in probs
    ]
    assert [len(row) for row in expected] != [3] * 5
    if format == "npy":
        stored = np.load(output)["targets"]
        assert stored.shape == (5, 3)
        assert [[t for t in row if t >= 0] for row in stored.tolist()] == expected
    elif format == "ndjson":
        records = [json.loads(line) for line in output.read_text().splitlines()]
        assert [record["targets"] for record in records] == expected
        assert {record["truncated"] for record in records} <= {True, False}
    else:
        assert json.loads((tmp_path / f"out.{format}.summary.json").read_text())["scored"] == 5


@pytest.fixture(scope="module")
def exported_words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threshold") / "words"
    exporter.export_model(make_model(), exporter.parse_destination(folder), labels=LABELS)
    return folder


@pytest.mark.parametrize(
    ("then", "now", "sentence"),
    [
        ({"threshold": 0.1}, {}, r"resume: expected threshold 0\.1, as the job began, got None"),
        ({}, {"threshold": 0.1}, r"resume: expected threshold None, as the job began, got 0\.1"),
        ({"threshold": 0.1}, {"threshold": 0.2}, r"expected threshold 0\.1, .* got 0\.2"),
    ],
)
def test_a_job_with_another_threshold_is_another_job(then, now, sentence):
    begun = {"records": 1, "bundle": "", "input": [], "native": False, "options": {"k": 3, **then}}
    expected = {**begun, "options": {"k": 3, **now}}
    with pytest.raises(CallError, match=sentence):
        expect_same_job(expected, begun)
    expect_same_job(begun, begun)


def test_a_job_of_another_version_of_the_records_is_refused():
    begun = {"records": 1, "bundle": "", "input": [], "native": False, "options": {}}
    with pytest.raises(CallError, match="resume: expected a job of this version of hsoftmax"):
        expect_same_job({**begun, "records": 2}, begun)
