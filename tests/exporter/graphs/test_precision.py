"""Graphs over weights in fewer bits answer as the reference does with what they stand for."""

import numpy as np
import pytest

from hsoftmax.exporter.graphs.hidden_states import STEPS
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models import hierarchical_softmax as reference

from .running import TOLERANCE, Running, needs_empty
from .test_hierarchical_softmax import MODELS, assert_top_k, hidden_for, softmax


def stored(model, precision):
    """The model that the weights stand for once they are stored so."""
    tensors = stored_tensors(model, precision)
    return from_tensors("HierarchicalSoftmax", tensors, attributes(model))


def on_grid(model, batch, size=None, seed=1):
    """Hidden rows that int8 graphs need not round: multiples of a 63rd of their largest value."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-STEPS, STEPS + 1, (batch, model.hidden_size))
    steps[:, 0] = STEPS
    hidden = (steps / np.float32(STEPS)).astype(np.float32)
    return hidden * np.float32(1 if size is None else size / reference.largest_logit(model, hidden))


# Which way to go is decided by the shape; fp16 goes the ways of fp32 but for the conversion.
CASES = [(name, "int8") for name in MODELS] + [
    (name, "fp16")
    for name in (
        "101 x 100 - 99",
        "unequal blocks and padding, theano",
        "three levels",
        "one level",
        "targets anywhere",
        "more rows than a tile, unequal",
    )
]


@pytest.fixture(scope="module", params=CASES, ids=map(", ".join, CASES))
def running(request, tmp_path_factory):
    name, precision = request.param
    params = dict(MODELS[name])
    model = softmax(*params.pop("sizes"), **params)
    return stored(model, precision), Running(model, tmp_path_factory.mktemp("graphs"), precision)


NONE = pytest.param(0, marks=needs_empty)


@pytest.mark.parametrize("batch", [NONE, 1, 5])
def test_every_target_and_cluster_equals_the_reference(running, batch):
    model, run = running
    hidden = on_grid(model, batch)
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **TOLERANCE)
    clusters = reference.cluster_log_probs(model, hidden)
    np.testing.assert_allclose(run("cluster_log_probs", hidden=hidden)[0], clusters, **TOLERANCE)


@pytest.mark.parametrize("pairs", [NONE, 1, 4, 5, 300])
def test_any_number_of_pairs_equals_the_reference(running, pairs):
    model, run = running
    rng = np.random.default_rng(pairs)
    hidden = on_grid(model, 5)
    row, target = rng.integers(0, 5, pairs), rng.integers(0, model.num_targets, pairs)
    got = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    wanted = reference.log_probs(model, hidden)[row, target]
    np.testing.assert_allclose(got, wanted, **TOLERANCE)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_logits_stay_finite_and_right(running, size):
    model, run = running
    hidden = on_grid(model, 4, size)
    full = reference.log_probs(model, hidden)
    near = {"rtol": 1e-6, "atol": max(1e-5, 1e-6 * size)}
    row, target = np.repeat(np.arange(4), 5), np.arange(20) % model.num_targets
    pairs = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(pairs, full[row, target], **near)
    got = run("log_probs", hidden=hidden)[0]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, full, **near)


def test_top_k_is_exact_of_what_is_stored(running):
    model, run = running
    k = min(10, model.num_targets)
    for size in (None, 20.0):
        hidden = on_grid(model, 3, size)
        answers = run.top_k(hidden, k)
        assert_top_k(model, hidden, answers, k)
        assert answers[3].all()


def test_a_sample_names_real_targets_and_their_log_prob(running):
    model, run = running
    hidden = on_grid(model, 3)
    noise = np.random.default_rng(3).random((3, 20, len(model.levels)), dtype=np.float32)
    target, log_prob = run("sample", hidden=hidden, noise=noise)
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


def test_rows_between_two_steps_are_off_by_no_more_than_their_rounding_allows(running):
    model, run = running
    hidden = hidden_for(model, 5)
    off = np.abs(run("log_probs", hidden=hidden)[0] - reference.log_probs(model, hidden))
    half_step = np.abs(hidden).max(axis=1) / STEPS / 2
    widest = sum(np.abs(level.weight).sum(axis=1).max() for level in model.levels)
    assert (off.max(axis=1) <= 2 * half_step * widest + 1e-5).all()


def test_a_row_is_answered_alone_as_in_a_batch(running):
    model, run = running
    hidden = hidden_for(model, 9) * np.linspace(0.1, 5, 9, dtype=np.float32)[:, None]
    hidden[4] = 0
    together = run("log_probs", hidden=hidden)[0]
    alone = [run("log_probs", hidden=row[None])[0][0] for row in hidden]
    np.testing.assert_allclose(alone, together, **TOLERANCE)


@pytest.mark.parametrize("sizes", [([1], [300]), ([3], [100, 150, 50])])
def test_integer_products_do_not_saturate(sizes, tmp_path):
    """Where every weight and state is as large as it can be, pairs of products reach 32,258."""
    model = softmax(*sizes, hidden=512)
    signs = np.where(np.arange(300) % 2, np.float32(-1), np.float32(1))
    model.levels[1].weight[:] = signs[:, None]
    run = Running(model, tmp_path, "int8")
    for states in (1, 2, 17):
        hidden = np.full((states, 512), 0.01, np.float32)
        got = run("log_probs", hidden=hidden)[0]
        wanted = reference.log_probs(stored(model, "int8"), hidden)
        np.testing.assert_allclose(got, wanted, **TOLERANCE)
