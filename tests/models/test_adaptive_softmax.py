"""Tests of the adaptive softmax reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.models import QueryError, WeightsError, adaptive_softmax
from hsoftmax.models.adaptive_softmax import (
    build,
    build_projected,
    cluster_log_probs,
    largest_logit,
    log_probs,
    target_log_prob,
    top_k,
)

from .adaptive import adaptive, adaptive_softmaxes
from .strategies import hidden_for


def naive_softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def naive(model, state):
    """Return the probabilities of one row, computed as the paper writes them."""

    def layer(part):
        projected = state if part.projection is None else part.projection.astype(np.float64) @ state
        z = part.weight.astype(np.float64) @ projected
        return naive_softmax(z if part.bias is None else z + part.bias)

    head = layer(model.head)
    probs = list(head[: model.shortlist])
    for i, tail in enumerate(model.tails):
        probs.extend(head[model.shortlist + i] * layer(tail))
    return np.array(probs)


@given(adaptive_softmaxes())
def test_the_full_distribution_equals_the_papers_formula(model):
    hidden = hidden_for(model)
    expected = [naive(model, state) for state in hidden.astype(np.float64)]
    np.testing.assert_allclose(np.exp(log_probs(model, hidden)), expected, rtol=1e-9, atol=1e-300)


@given(adaptive_softmaxes(), st.sampled_from([1.0, 60.0, 1e4]))
def test_probabilities_sum_to_one_and_stay_finite_for_large_logits(model, scale):
    full = log_probs(model, hidden_for(model, scale=scale))
    assert np.isfinite(full).all()
    np.testing.assert_allclose(np.exp(full).sum(axis=1), 1)


@given(adaptive_softmaxes())
def test_a_tails_targets_sum_to_the_probability_of_its_row_in_the_head(model):
    hidden = hidden_for(model)
    full, head = np.exp(log_probs(model, hidden)), np.exp(cluster_log_probs(model, hidden))
    assert head.shape[1] == model.num_clusters == model.shortlist + len(model.tails)
    np.testing.assert_allclose(full[:, : model.shortlist], head[:, : model.shortlist])
    for i, (start, end) in enumerate(zip(model.bounds[:-1], model.bounds[1:], strict=True)):
        tail = full[:, start:end].sum(axis=1)
        np.testing.assert_allclose(tail, head[:, model.shortlist + i])


def test_a_tail_of_width_zero_is_uniform():
    model = adaptive(3, (4,), widths=(0,))
    inside = log_probs(model, hidden_for(model))[:, 3:]
    head = cluster_log_probs(model, hidden_for(model))[:, 3:]
    np.testing.assert_allclose(inside - head, np.log(1 / 4))


def test_sizes_follow_from_the_layers():
    model = adaptive(4, (3, 5), widths=(2, None), hidden=6)
    assert (model.shortlist, model.cutoffs, model.num_targets) == (4, (4, 7), 12)
    assert (model.hidden_size, model.num_clusters) == (6, 6)


ZEROS = np.zeros


@pytest.mark.parametrize(
    ("head", "tails", "message"),
    [
        ([ZEROS((4, 3))], [], r"tails: expected at least one, got none"),
        (
            [ZEROS((2, 3))],
            [[ZEROS((2, 3))]] * 2,
            r"head weight: expected more than 2 rows .* got 2",
        ),
        ([ZEROS((4, 3)), ZEROS(3)], [[ZEROS((2, 3))]], r"head bias: expected \[4\], got \[3\]"),
        ([ZEROS(4)], [[ZEROS((2, 3))]], r"head weight: expected \[rows, width\], got \[4\]"),
        ([ZEROS((4, 0))], [[ZEROS((2, 0))]], r"hidden_size: expected at least 1, got 0"),
        ([ZEROS((4, 3))], [[ZEROS((2, 2))]], r"tail 0 weight: expected \[2, 3\], got \[2, 2\]"),
        ([ZEROS((4, 3))], [[ZEROS((0, 3))]], r"tail 0 weight: expected at least one row, got none"),
        (
            [ZEROS((4, 3))],
            [[ZEROS((2, 2)), None, ZEROS((2, 4))]],
            r"tail 0 projection: expected \[2, 3\], got \[2, 4\]",
        ),
        (
            [ZEROS((4, 3))],
            [[ZEROS((2, 2)), None, ZEROS((3, 2))]],
            r"tail 0 projection: expected \[2, 2\], got \[3, 2\]",
        ),
        ([np.full((4, 3), np.nan)], [[ZEROS((2, 3))]], r"head weight: expected finite .* got nan"),
    ],
)
def test_arrays_that_do_not_make_a_model_are_refused(head, tails, message):
    with pytest.raises(WeightsError, match=message):
        build(
            build_projected("head", *head),
            [build_projected(f"tail {i}", *tail) for i, tail in enumerate(tails)],
        )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (lambda m, h: log_probs(m, h[:, :5]), r"hidden: expected \[batch, 6\], got \[1, 5\]"),
        (lambda m, h: target_log_prob(m, h, np.array([0]), np.array([12])), r"target: .* got 12"),
        (lambda m, h: target_log_prob(m, h, np.array([1]), np.array([0])), r"row: .* got 1 to 1"),
        (lambda m, h: top_k(m, h, 13), r"k: expected 1 to 12, got 13"),
    ],
)
def test_invalid_queries_are_refused(query, message):
    with pytest.raises(QueryError, match=message):
        query(adaptive(), ZEROS((1, 6)))


def test_the_reference_of_a_model_is_its_familys_module():
    from hsoftmax.models import reference

    assert reference(adaptive()) is adaptive_softmax


def test_the_largest_logit_is_the_largest_product_and_bias_of_one_layer():
    head = build_projected("head", np.array([[1.0, 0], [0, -2]]), np.array([0.5, -3]))
    tail = build_projected("tail", np.array([[3.0], [-1]]), None, np.array([[0.0, 2]]))
    model = build(head, [tail])
    # Head: |-2 · 4| + |-3|; tail: the projection gives 8, |3 · 8|.
    assert largest_logit(model, np.array([[1.0, 4.0]])) == 24
    assert largest_logit(model, np.array([[9.0, 0.5]])) == 9 + 3


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.booleans())
def test_a_bias_of_a_projection_is_folded_exactly(seed, width, has_bias):
    rng = np.random.default_rng(seed)
    weight, projection = rng.normal(size=(5, width)), rng.normal(size=(width, 6))
    bias, projection_bias = rng.normal(size=5), rng.normal(size=width)
    layer = build_projected(
        "layer", weight, bias if has_bias else None, projection, projection_bias=projection_bias
    )
    expected = weight @ projection_bias + (bias if has_bias else 0)
    np.testing.assert_array_equal(layer.bias, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("weight", "projection_bias", "message"),
    [
        (np.ones((5, 2)), np.zeros(3), r"layer projection bias: expected \[2\], got \[3\]"),
        (np.ones((5, 2)), np.full(2, np.nan), r"layer projection bias: expected finite .* got nan"),
        (np.full((5, 2), np.inf), np.zeros(2), r"layer weight: expected finite .* got inf"),
        (np.full((5, 2), 2e38), np.full(2, 2.0), r"layer bias: expected finite .* got 8e\+38"),
    ],
)
def test_a_projections_bias_that_does_not_fit_is_refused(weight, projection_bias, message):
    with pytest.raises(WeightsError, match=message):
        build_projected("layer", weight, None, np.ones((2, 6)), projection_bias=projection_bias)
