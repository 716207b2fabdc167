"""Tests of the hierarchical softmax reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.models import (
    HierarchicalSoftmax,
    Level,
    QueryError,
    WeightsError,
    hierarchical_softmax,
)
from hsoftmax.models.hierarchical_softmax import (
    cluster_log_probs,
    largest_logit,
    log_probs,
    row_log_probs,
    target_log_prob,
    top_k,
)

from .strategies import hidden_for, hierarchical_softmaxes


@given(hierarchical_softmaxes())
def test_masked_probabilities_sum_to_one_and_theanos_to_at_most_one(model):
    total = np.exp(log_probs(model, hidden_for(model))).sum(axis=1)
    if model.padding == "mask":
        np.testing.assert_allclose(total, 1)
    else:
        assert (total <= 1 + 1e-12).all()
        assert np.exp(row_log_probs(model, hidden_for(model), depth=len(model.levels))).sum(
            1
        ) == pytest.approx(1)


@given(hierarchical_softmaxes())
def test_probabilities_of_a_cluster_sum_to_its_probability(model):
    hidden = hidden_for(model)
    rows = np.exp(row_log_probs(model, hidden, depth=len(model.levels)))
    for level in reversed(model.levels[1:]):
        rows = np.add.reduceat(rows, level.offsets[:-1], axis=1)
    clusters = np.exp(cluster_log_probs(model, hidden))
    alive = np.isfinite(np.log(clusters, where=clusters > 0, out=np.full_like(clusters, -np.inf)))
    np.testing.assert_allclose(rows[alive], clusters[alive])


@given(hierarchical_softmaxes(), st.floats(-50, 50))
def test_adding_a_constant_to_the_biases_of_a_block_changes_nothing(model, constant):
    first, *rest = model.levels
    shifted = HierarchicalSoftmax(
        (Level(first.weight, first.bias + np.float32(constant), first.offsets), *rest),
        model.num_targets,
        model.target_rows,
        model.padding,
    )
    hidden = hidden_for(model)
    np.testing.assert_allclose(log_probs(shifted, hidden), log_probs(model, hidden), atol=1e-4)


def test_equal_probabilities_go_to_the_lower_target():
    flat = hierarchical_softmax.build_level(
        "level 0", np.zeros((5, 2)), np.zeros(5), np.array([0, 5])
    )
    model = hierarchical_softmax.build((flat,), num_targets=5, target_rows=np.arange(5)[::-1])
    assert top_k(model, np.ones((1, 2)), 3)[1].tolist() == [[0, 1, 2]]


def test_one_level_is_a_plain_softmax():
    weight = np.array([[1.0, 0.0], [0.0, 1.0]])
    flat = hierarchical_softmax.build_level("level 0", weight, np.zeros(2), np.array([0, 2]))
    model = hierarchical_softmax.build((flat,), num_targets=2)
    actual = np.exp(log_probs(model, np.array([[np.log(3.0), 0.0]])))
    np.testing.assert_allclose(actual, [[0.75, 0.25]])


def two_levels(**changes):
    parts = {
        "w0": np.zeros((2, 3)),
        "b0": np.zeros(2),
        "o0": np.array([0, 2]),
        "w1": np.zeros((5, 3)),
        "b1": np.zeros(5),
        "o1": np.array([0, 2, 5]),
        "num_targets": 5,
        "target_rows": None,
    } | changes
    return hierarchical_softmax.build(
        (
            hierarchical_softmax.build_level("level 0", parts["w0"], parts["b0"], parts["o0"]),
            hierarchical_softmax.build_level("level 1", parts["w1"], parts["b1"], parts["o1"]),
        ),
        num_targets=parts["num_targets"],
        target_rows=parts["target_rows"],
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w1": np.zeros((5, 4))}, r"level 1 weight: expected \[5, 3\], got \[5, 4\]"),
        ({"b1": np.zeros(4)}, r"level 1 bias: expected \[5\], got \[4\]"),
        ({"w0": np.zeros(6)}, r"level 0 weight: expected \[rows, hidden_size\], got \[6\]"),
        ({"o1": np.array([0, 2, 4])}, r"level 1 offsets: expected 0 to 5, got \[0, 4\]"),
        ({"o1": np.array([0, 5, 5])}, r"level 1 block 1: expected at least one row, got none"),
        ({"o1": np.array([0, 5])}, r"level 1: expected 2 blocks, got 1"),
        (
            {"o1": np.array([0.0, 2.0, 5.0])},
            r"level 1 offsets: expected integers, got dtype float64",
        ),
        ({"b0": np.array([0, np.nan])}, r"level 0 bias: expected finite .* got nan at \[1\]"),
        (
            {"b0": np.array([0, 1e300])},
            r"level 0 bias: expected finite float32 values, got 1e\+300",
        ),
        ({"b0": np.array(["a", "b"])}, r"level 0 bias: expected numbers, got dtype <U1"),
        ({"num_targets": 6}, r"num_targets: expected 1 to 5, got 6"),
        ({"num_targets": 0}, r"num_targets: expected 1 to 5, got 0"),
        ({"target_rows": np.arange(4)}, r"target_rows: expected \[5\], got \[4\]"),
        ({"target_rows": np.array([0, 1, 2, 3, 3])}, r"target_rows: expected .* got repeats"),
        ({"target_rows": np.array([0, 1, 2, 3, 5])}, r"target_rows: expected 0 to 4, got 0 to 5"),
    ],
)
def test_arrays_that_do_not_make_a_model_are_refused(changes, message):
    with pytest.raises(WeightsError, match=message):
        two_levels(**changes)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (lambda m: log_probs(m, np.zeros((1, 4))), r"hidden: expected \[batch, 3\], got \[1, 4\]"),
        (
            lambda m: target_log_prob(m, np.zeros((1, 3)), np.array([0]), np.array([5])),
            r"target: expected 0 to 4, got 5",
        ),
        (
            lambda m: target_log_prob(m, np.zeros((1, 3)), np.array([0]), np.array([-1])),
            r"target: expected 0 to 4, got -1",
        ),
        (
            lambda m: target_log_prob(m, np.zeros((1, 3)), np.array([1]), np.array([0])),
            r"row: expected 0 to 0, got 1 to 1",
        ),
        (lambda m: top_k(m, np.zeros((1, 3)), 0), r"k: expected 1 to 5, got 0"),
        (lambda m: top_k(m, np.zeros((1, 3)), 6), r"k: expected 1 to 5, got 6"),
    ],
)
def test_invalid_queries_are_refused(query, message):
    with pytest.raises(QueryError, match=message):
        query(two_levels())


def test_the_largest_logit_is_the_largest_product_and_bias_of_one_level():
    upper = hierarchical_softmax.build_level(
        "level 0", np.array([[1.0, 0], [0, -2]]), np.array([0.5, -3]), np.array([0, 2])
    )
    lower = hierarchical_softmax.build_level(
        "level 1",
        np.array([[0, 1.0], [3, 0], [0, 0]]),
        np.array([-1.0, 0.25, 0]),
        np.array([0, 2, 3]),
    )
    model = hierarchical_softmax.build((upper, lower), num_targets=3)
    # Level 0: |-2 · 4| + |-3|; level 1: |1 · 4| + |-1|.
    assert largest_logit(model, np.array([[1.0, 4.0]])) == 8 + 3
    # Level 0: |-2 · 0.5| or 1 · 1, + |-3|; level 1: |3 · 1| + |-1|.
    assert largest_logit(model, np.array([[1.0, 0.5]])) == 3 + 1
    assert largest_logit(model, np.array([[1.0, 4.0], [-9.0, 0.0]])) == 27 + 1
    model.levels[0].bias[1] = -np.inf  # a row of padding
    assert largest_logit(model, np.array([[1.0, 4.0]])) == 8 + 0.5
