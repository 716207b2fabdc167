"""Tests of the hierarchical softmax graphs against the reference, for many shapes and queries."""

import numpy as np
import pytest

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import hierarchical_softmax as reference
from hsoftmax.models.levels import build_level
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.native import load_library
from tests.runtime.kernels import LevelsSample

from .task_runner import TOLERANCE, TaskRunner, assert_every_target, needs_empty

_SHUFFLED = np.random.default_rng(7).permutation(40)


def softmax(*sizes, hidden=6, spread=1.0, seed=0, **kwargs):
    """Build a random model whose level i has blocks of sizes[i] rows."""
    rng = np.random.default_rng(seed)
    levels = []
    for i, blocks in enumerate(sizes):
        offsets = np.concatenate([[0], np.cumsum(blocks)])
        weight = rng.normal(size=(offsets[-1], hidden)) * spread
        bias = rng.normal(size=offsets[-1])
        levels.append(build_level(f"level {i}", weight, bias, offsets))
    kwargs.setdefault("num_targets", levels[-1].num_rows)
    return reference.build(tuple(levels), **kwargs)


MODELS = {
    "more clusters than rows": {"sizes": ([9], [4] * 9)},
    "more rows than clusters": {"sizes": ([3], [11] * 3)},
    "one cluster": {"sizes": ([1], [7])},
    "one row a cluster": {"sizes": ([7], [1] * 7)},
    "one target": {"sizes": ([1], [1])},
    "padding in the last cluster": {"sizes": ([5], [4] * 5), "num_targets": 18},
    "whole clusters of padding": {"sizes": ([5], [4] * 5), "num_targets": 9},
    "whole clusters of padding, theano": {
        "sizes": ([5], [4] * 5), "num_targets": 9, "padding": "theano"
    },
    "101 x 100 - 99": {"sizes": ([101], [100] * 101), "num_targets": 10_001},
    "101 x 100 - 99, theano": {
        "sizes": ([101], [100] * 101), "num_targets": 10_001, "padding": "theano"
    },
    "unequal blocks": {"sizes": ([5], [3, 1, 12, 2, 7])},
    "unequal blocks and padding, theano": {
        "sizes": ([5], [3, 1, 12, 2, 7]), "num_targets": 13, "padding": "theano"
    },
    "three levels": {"sizes": ([3], [2, 3, 2], [4, 2, 1, 3, 3, 2, 6])},
    "three equal levels": {"sizes": ([3], [3] * 3, [3] * 9)},
    "one level": {"sizes": ([23],)},
    "targets anywhere": {
        "sizes": ([8], [5] * 8), "target_rows": _SHUFFLED[:30], "num_targets": 30
    },
    "targets anywhere in unequal blocks, theano": {
        "sizes": ([4], [13, 2, 20, 5]), "target_rows": _SHUFFLED[:25], "num_targets": 25,
        "padding": "theano",
    },
    "more rows than a tile, unequal": {"sizes": ([40], list(range(20, 60)))},
    "more blocks than a tile": {"sizes": ([333], [7] * 333)},
    "blocks large enough to pass by": {
        "sizes": ([12], [150] * 12), "hidden": 256, "spread": 0.05
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def model_and_runner(request, tmp_path_factory):
    params = dict(request.param)
    model = softmax(*params.pop("sizes"), **params)
    return model, TaskRunner(model, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory):
    """Return a model with so many blocks that top-k opens some before it uses all."""
    model = softmax([400], [3] * 400, num_targets=1200)
    return model, TaskRunner(model, tmp_path_factory.mktemp("graphs"))


def hidden_for(model, batch, scale=1.0, seed=1):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(batch, model.hidden_size)) * scale).astype(np.float32)


def with_logits_of(model, batch, size):
    hidden = hidden_for(model, batch)
    return hidden * np.float32(size / reference.largest_logit(model, hidden))


def assert_top_k(model, hidden, export_and_run, k):
    """Assert the k best values, distinct targets with these values, and the order of ties."""
    log_prob, target = export_and_run[:2]
    full = reference.log_probs(model, hidden)
    near = TOLERANCE | {"atol": max(TOLERANCE["atol"], 2e-7 * np.abs(full).max(initial=0.0))}
    best = -np.sort(-full, axis=1)[:, :k]
    np.testing.assert_allclose(log_prob, best, **near)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **near)
    assert all(len(set(row)) == k for row in target.tolist())
    assert (np.diff(log_prob, axis=1) <= 0).all()
    assert (np.diff(target, axis=1)[np.diff(log_prob, axis=1) == 0] > 0).all()


@pytest.mark.parametrize("batch", [1, 5])
def test_every_target_and_cluster_equals_the_reference(model_and_runner, batch):
    model, run = model_and_runner
    hidden = hidden_for(model, batch)
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **TOLERANCE)
    np.testing.assert_allclose(
        run("cluster_log_probs", hidden=hidden)[0],
        reference.cluster_log_probs(model, hidden),
        **TOLERANCE,
    )


@pytest.mark.parametrize("pairs", [1, 2, 4, 5, 64, 700])
def test_any_number_of_pairs_in_any_order_equals_the_reference(model_and_runner, pairs):
    model, run = model_and_runner
    rng = np.random.default_rng(pairs)
    hidden = hidden_for(model, 5)
    row, target = rng.integers(0, 5, pairs), rng.integers(0, model.num_targets, pairs)
    actual = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    expected = reference.log_probs(model, hidden)[row, target]
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("size", [60.0, 100.0, 1e4])
def test_large_logits_stay_finite_and_right(model_and_runner, size):
    model, run = model_and_runner
    hidden = with_logits_of(model, 4, size)
    full = reference.log_probs(model, hidden)
    near = {"rtol": 1e-6, "atol": max(1e-5, 1e-6 * size)}
    row = np.repeat(np.arange(4), 5)
    target = np.random.default_rng(2).integers(0, model.num_targets, 20)
    pairs = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(pairs, full[row, target], **near)
    actual = run("log_probs", hidden=hidden)[0]
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, full, **near)
    log_prob, target, _, exact = run.top_k(hidden, min(10, model.num_targets))
    assert exact.all()
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **near)


@needs_empty
def test_empty_batches_get_empty_answers(model_and_runner):
    model, run = model_and_runner
    none = hidden_for(model, 0)
    nothing = np.zeros(0, np.int64)
    assert run("log_probs", hidden=none)[0].shape == (0, model.num_targets)
    assert run("cluster_log_probs", hidden=none)[0].shape == (0, model.num_clusters)
    for hidden in (none, hidden_for(model, 3)):
        answer = run("target_log_prob", hidden=hidden, row=nothing, target=nothing)[0]
        assert answer.shape == (0,)
    log_prob, target, blocks, exact = run.top_k(none, 1)
    assert log_prob.shape == target.shape == (0, 1)
    assert blocks.shape == exact.shape == (0,)
    noise = np.zeros((0, 3, len(model.levels)), np.float32)
    assert run("sample", hidden=none, noise=noise)[0].shape == (0, 3)


@pytest.mark.parametrize("k", [1, 10, None])
def test_top_k_is_exact(model_and_runner, k):
    model, run = model_and_runner
    k = min(k or model.num_targets, model.num_targets)
    for scale in (0.0, 1.0, 20.0):
        hidden = hidden_for(model, 3, scale)
        export_and_run = run.top_k(hidden, k)
        assert_top_k(model, hidden, export_and_run, k)
        assert export_and_run[3].all()


def test_top_k_opens_few_blocks_of_a_peaked_row_and_all_of_a_flat_one(many_blocks):
    model, run = many_blocks
    hidden = np.concatenate([hidden_for(model, 6, 5.0), hidden_for(model, 2, 0.01)])
    export_and_run = run.top_k(hidden, 5)
    assert_top_k(model, hidden, export_and_run, 5)
    _, _, blocks, exact = export_and_run
    assert exact.all()
    assert (blocks[:6] < 40).all()
    assert (blocks[6:] == 400).all()


def test_a_row_has_the_same_top_k_alone_and_in_a_batch(many_blocks):
    model, run = many_blocks
    hidden = hidden_for(model, 12, 3.0)
    together = run.top_k(hidden, 7)
    for i in range(12):
        alone = run.top_k(hidden[i : i + 1], 7)
        np.testing.assert_allclose(alone[0][0], together[0][i], **TOLERANCE)
        for part in (1, 2, 3):
            np.testing.assert_array_equal(alone[part][0], together[part][i])


@pytest.mark.parametrize("max_blocks", [1, 2, 30, 1000])
def test_a_limit_on_blocks_is_kept_and_exact_results_are_right(many_blocks, max_blocks):
    model, run = many_blocks
    hidden = np.concatenate([hidden_for(model, 5, s, seed=3) for s in (0.1, 1.0, 8.0)])
    log_prob, target, blocks, exact = run.top_k(hidden, 3, max_blocks)
    full = reference.log_probs(model, hidden)
    assert (blocks <= max_blocks).all()
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)
    assert_top_k(model, hidden[exact], (log_prob[exact], target[exact]), 3)
    assert exact[-5:].all() or max_blocks < 30
    assert not exact.all() or max_blocks >= 30


def test_a_row_with_a_limit_goes_on_until_it_has_k_targets(many_blocks):
    model, run = many_blocks
    _, target, blocks, _ = run.top_k(hidden_for(model, 4), 8, 1)
    assert (target < model.num_targets).all()
    assert (blocks == 3).all()


def test_ties_go_to_the_lower_target_across_blocks(tmp_path):
    rows = np.random.default_rng(0).permutation(600)
    model = softmax([200], [3] * 200, num_targets=600, target_rows=rows)
    for level in model.levels:
        level.weight[:] = 0
        level.bias[:] = 0
    model.levels[0].bias[[7, 90, 150]] = 30.0
    run = TaskRunner(model, tmp_path)
    log_prob, target, blocks, exact = run.top_k(np.ones((2, 6), np.float32), 8)
    likely = np.isin(rows // 3, [7, 90, 150])
    np.testing.assert_array_equal(target, [np.flatnonzero(likely)[:8]] * 2)
    assert exact.all()
    assert (blocks == 3).all()
    assert (log_prob == log_prob[0, 0]).all()


def test_a_sample_has_valid_targets_and_their_log_prob(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 3)
    noise = np.random.default_rng(3).random((3, 40, len(model.levels)), dtype=np.float32)
    noise[:, :2] = [[0.0], [1 - 2**-24]]
    target, log_prob = run("sample", hidden=hidden, noise=noise)
    assert ((target >= 0) & (target < model.num_targets)).all()
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


def test_the_native_kernel_draws_as_the_graph_does(model_and_runner):
    model, run = model_and_runner
    tensors = {n: np.ascontiguousarray(t) for n, t in stored_tensors(model, "fp32").items()}
    kernel = LevelsSample(load_library(), tensors, num_targets=model.num_targets)
    feeds = {"hidden": hidden_for(model, 5), "noise": noise(7, 5, 200, len(model.levels))}
    target, log_prob = kernel(feeds)
    graph_target, graph_log_prob = run("sample", **feeds)
    same = target == graph_target
    assert same.mean() > 0.998  # rounding may decide between two neighbours
    np.testing.assert_allclose(log_prob[same], graph_log_prob[same], **TOLERANCE)


@pytest.mark.parametrize(
    "name", ["padding in the last cluster", "targets anywhere", "three levels"]
)
def test_samples_follow_the_full_distribution(name, tmp_path):
    params = dict(MODELS[name])
    model = softmax(*params.pop("sizes"), **params)
    hidden = hidden_for(model, 1, 0.5)
    noise = np.random.default_rng(4).random((1, 20_000, len(model.levels)), dtype=np.float32)
    target, _ = TaskRunner(model, tmp_path)("sample", hidden=hidden, noise=noise)
    drawn = np.bincount(target[0], minlength=model.num_targets)
    expected = np.exp(reference.log_probs(model, hidden))[0] * 20_000
    chi_square, freedom = ((drawn - expected) ** 2 / expected).sum(), model.num_targets - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_graphs_stay_small_with_many_blocks(many_blocks, model_and_runner):
    for _, run in (many_blocks, model_and_runner):
        assert max(run.sizes.values()) < 48_000


def test_a_top_level_too_wide_to_be_transposed_equals_the_reference(tmp_path):
    """A level of more than 8192 rows is stored row by row, and slices of hidden have no width."""
    model = softmax([8193], hidden=3)
    run, hidden = TaskRunner(model, tmp_path), hidden_for(model, 70)
    assert_every_target(model, run, hidden[:1])
    row, target = np.arange(70), np.arange(70) * 117
    actual = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(actual, reference.log_probs(model, hidden)[row, target], **TOLERANCE)


def test_a_sample_is_a_target_even_if_padding_is_far_more_likely(tmp_path):
    model = softmax([5], [4] * 5, num_targets=9, padding="theano")
    hidden = with_logits_of(model, 40, 1e4)
    noise = np.random.default_rng(0).random((40, 20, 2), dtype=np.float32)
    target, log_prob = TaskRunner(model, tmp_path)("sample", hidden=hidden, noise=noise)
    assert (target < model.num_targets).all()
    full = reference.log_probs(model, hidden)
    expected = np.take_along_axis(full, target, axis=1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6, atol=1e-2)
