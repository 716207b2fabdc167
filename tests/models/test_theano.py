"""Tests of the conversion of Theano's two-level softmax against its formula."""

import numpy as np
import pytest

from hsoftmax.models import WeightsError, from_theano
from hsoftmax.models.hierarchical_softmax import cluster_log_probs, log_probs, target_log_prob

SHAPES = {  # name: (C, K, num_targets)
    "as many targets as slots": (4, 4, 16),
    "more clusters than rows": (7, 3, 21),
    "fewer clusters than rows": (3, 7, 21),
    "one cluster": (1, 9, 9),
    "one row a cluster": (9, 1, 9),
    "padding in the last cluster": (4, 5, 18),
    "whole padded clusters": (6, 4, 14),
    "one target": (2, 2, 1),
    "10,001 targets": (101, 100, 10_001),
    "10,001 targets by Theano's recipe": (101, 101, 10_001),
}
HIDDEN = 6


def weights(clusters: int, block: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    shapes = [(HIDDEN, clusters), (clusters,), (clusters, HIDDEN, block), (clusters, block)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def softmax(x):
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def naive(hidden, W1, b1, W2, b2, num_targets):
    """Return Theano's h_softmax without a target: two softmaxes multiplied, cut at n_outputs."""
    hidden, W1, b1, W2, b2 = (a.astype(np.float64) for a in (hidden, W1, b1, W2, b2))
    clusters = softmax(hidden @ W1 + b1)
    inside = softmax(np.einsum("bh,chk->bck", hidden, W2) + b2)
    return (clusters[:, :, None] * inside).reshape(len(hidden), -1)[:, :num_targets]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_theano_padding_reproduces_theanos_formula(shape):
    clusters, block, num_targets = shape
    arrays = weights(clusters, block)
    hidden = np.random.default_rng(1).normal(size=(3, HIDDEN)).astype(np.float32)
    model = from_theano(*arrays, num_targets=num_targets, padding="theano")
    np.testing.assert_allclose(
        np.exp(log_probs(model, hidden)), naive(hidden, *arrays, num_targets), rtol=1e-10
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_mask_padding_renormalises_each_softmax_over_rows_with_targets(shape):
    clusters, block, num_targets = shape
    W1, b1, W2, b2 = weights(clusters, block)
    hidden = np.random.default_rng(1).normal(size=(3, HIDDEN)).astype(np.float32)
    model = from_theano(W1, b1, W2, b2, num_targets=num_targets)
    used = -(-num_targets // block)
    full = np.exp(log_probs(model, hidden))
    np.testing.assert_allclose(full.sum(axis=1), 1)
    np.testing.assert_allclose(
        np.exp(cluster_log_probs(model, hidden))[:, :used],
        softmax(hidden.astype(np.float64) @ W1[:, :used] + b1[:used]),
    )
    assert np.isneginf(cluster_log_probs(model, hidden)[:, used:]).all()
    row, target = np.divmod(np.arange(3 * num_targets), num_targets)
    alone = np.exp(target_log_prob(model, hidden, row, target))
    np.testing.assert_allclose(alone, full[row, target], rtol=1e-12)


def test_both_paddings_agree_where_nothing_is_padding():
    arrays = weights(4, 5)
    hidden = np.ones((2, HIDDEN), dtype=np.float32)
    np.testing.assert_array_equal(
        log_probs(from_theano(*arrays, padding="theano"), hidden),
        log_probs(from_theano(*arrays, padding="mask"), hidden),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((1, np.zeros(3)), r"b1: expected \[4\], got \[3\]"),
        ((2, np.zeros((4, 5, 3))), r"W2: expected \[4, 6, 3\], got \[4, 5, 3\]"),
        ((2, np.zeros((4, 6))), r"W2: expected \[C, H, K\], got \[4, 6\]"),
        ((3, np.zeros((4, 4))), r"b2: expected \[4, 3\], got \[4, 4\]"),
        ((0, np.full((6, 4), np.inf)), r"level 0 \(W1, b1\) weight: expected finite"),
    ],
)
def test_shapes_and_values_that_do_not_fit_are_refused(change, message):
    arrays = weights(4, 3)
    arrays[change[0]] = change[1]
    with pytest.raises(WeightsError, match=message):
        from_theano(*arrays)
