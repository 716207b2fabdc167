"""Tests of graphs over weights in fewer bits against the reference over the stored weights."""

import numpy as np
import pytest

from hsoftmax.exporter.graphs.hidden_states import QUANTISED_MAX
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models import hierarchical_softmax as reference

from .task_runner import TOLERANCE, TaskRunner, needs_empty
from .test_hierarchical_softmax import MODELS, assert_top_k, hidden_for, softmax


def model_as_stored(model, precision):
    """Return the model that the stored weights represent."""
    tensors = stored_tensors(model, precision)
    return from_tensors("HierarchicalSoftmax", tensors, attributes(model))


def exact_hidden_for(model, batch, size=None, seed=1):
    """Return hidden rows that int8 graphs need not round: multiples of 1/63 of their maximum."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-QUANTISED_MAX, QUANTISED_MAX + 1, (batch, model.hidden_size))
    steps[:, 0] = QUANTISED_MAX
    hidden = (steps / np.float32(QUANTISED_MAX)).astype(np.float32)
    return hidden * np.float32(1 if size is None else size / reference.largest_logit(model, hidden))


# The shape selects the method; fp16 and bf16 use the methods of fp32, with a conversion.
CASES = [(name, "int8") for name in MODELS] + [
    (name, precision)
    for precision in ("fp16", "bf16")
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
def model_and_runner(request, tmp_path_factory):
    name, precision = request.param
    params = dict(MODELS[name])
    model = softmax(*params.pop("sizes"), **params)
    return model_as_stored(model, precision), TaskRunner(
        model, tmp_path_factory.mktemp("graphs"), precision
    )


NONE = pytest.param(0, marks=needs_empty)


@pytest.mark.parametrize("batch", [NONE, 1, 5])
def test_every_target_and_cluster_equals_the_reference(model_and_runner, batch):
    model, run = model_and_runner
    hidden = exact_hidden_for(model, batch)
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **TOLERANCE)
    clusters = reference.cluster_log_probs(model, hidden)
    np.testing.assert_allclose(run("cluster_log_probs", hidden=hidden)[0], clusters, **TOLERANCE)


@pytest.mark.parametrize("pairs", [NONE, 1, 4, 5, 300])
def test_any_number_of_pairs_equals_the_reference(model_and_runner, pairs):
    model, run = model_and_runner
    rng = np.random.default_rng(pairs)
    hidden = exact_hidden_for(model, 5)
    row, target = rng.integers(0, 5, pairs), rng.integers(0, model.num_targets, pairs)
    actual = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    expected = reference.log_probs(model, hidden)[row, target]
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_logits_stay_finite_and_right(model_and_runner, size):
    model, run = model_and_runner
    hidden = exact_hidden_for(model, 4, size)
    full = reference.log_probs(model, hidden)
    near = {"rtol": 1e-6, "atol": max(1e-5, 1e-6 * size)}
    row, target = np.repeat(np.arange(4), 5), np.arange(20) % model.num_targets
    pairs = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(pairs, full[row, target], **near)
    actual = run("log_probs", hidden=hidden)[0]
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, full, **near)


def test_top_k_is_exact_for_the_stored_weights(model_and_runner):
    model, run = model_and_runner
    k = min(10, model.num_targets)
    for size in (None, 20.0):
        hidden = exact_hidden_for(model, 3, size)
        export_and_run = run.top_k(hidden, k)
        assert_top_k(model, hidden, export_and_run, k)
        assert export_and_run[3].all()


def test_a_sample_has_valid_targets_and_their_log_prob(model_and_runner):
    model, run = model_and_runner
    hidden = exact_hidden_for(model, 3)
    noise = np.random.default_rng(3).random((3, 20, len(model.levels)), dtype=np.float32)
    target, log_prob = run("sample", hidden=hidden, noise=noise)
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


def test_rounded_hidden_rows_stay_within_the_error_bound(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 5)
    off = np.abs(run("log_probs", hidden=hidden)[0] - reference.log_probs(model, hidden))
    half_step = np.abs(hidden).max(axis=1) / QUANTISED_MAX / 2
    widest = sum(np.abs(level.weight).sum(axis=1).max() for level in model.levels)
    assert (off.max(axis=1) <= 2 * half_step * widest + 1e-5).all()


def test_a_row_has_the_same_result_alone_and_in_a_batch(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 9) * np.linspace(0.1, 5, 9, dtype=np.float32)[:, None]
    hidden[4] = 0
    together = run("log_probs", hidden=hidden)[0]
    alone = [run("log_probs", hidden=row[None])[0][0] for row in hidden]
    np.testing.assert_allclose(alone, together, **TOLERANCE)


@pytest.mark.parametrize("sizes", [([1], [300]), ([3], [100, 150, 50])])
def test_integer_products_do_not_saturate(sizes, tmp_path):
    """With the largest weights and states, the sum of two products reaches 32,258."""
    model = softmax(*sizes, hidden=512)
    signs = np.where(np.arange(300) % 2, np.float32(-1), np.float32(1))
    model.levels[1].weight[:] = signs[:, None]
    run = TaskRunner(model, tmp_path, "int8")
    for states in (1, 2, 17):
        hidden = np.full((states, 512), 0.01, np.float32)
        actual = run("log_probs", hidden=hidden)[0]
        expected = reference.log_probs(model_as_stored(model, "int8"), hidden)
        np.testing.assert_allclose(actual, expected, **TOLERANCE)
