"""Tests of the graphs for CUDA, on the CPU: the same checks as of the portable graphs.

Each run has room for a few blocks only, so that tasks take several runs. All models of the table
are slow tests; the default ones have every layout: equal and unequal blocks, several levels,
padding that keeps probability, and targets in any order.
"""

import numpy as np
import pytest

from hsoftmax.models import hierarchical_softmax as reference
from hsoftmax.models.seeded_noise import noise

from .task_runner import TOLERANCE, CudaTaskRunner, TaskRunner
from .test_hierarchical_softmax import (
    MODELS,
    assert_top_k,
    hidden_for,
    softmax,
    test_a_limit_on_blocks_is_kept_and_exact_results_are_right,
    test_a_row_has_the_same_top_k_alone_and_in_a_batch,
    test_a_row_with_a_limit_goes_on_until_it_has_k_targets,
    test_a_sample_has_valid_targets_and_their_log_prob,
    test_any_number_of_pairs_in_any_order_equals_the_reference,
    test_every_target_and_cluster_equals_the_reference,
    test_large_logits_stay_finite_and_right,
    test_the_native_kernel_draws_as_the_graph_does,
    test_top_k_is_exact,
)

__all__ = [
    "test_a_limit_on_blocks_is_kept_and_exact_results_are_right",
    "test_a_row_has_the_same_top_k_alone_and_in_a_batch",
    "test_a_row_with_a_limit_goes_on_until_it_has_k_targets",
    "test_a_sample_has_valid_targets_and_their_log_prob",
    "test_any_number_of_pairs_in_any_order_equals_the_reference",
    "test_every_target_and_cluster_equals_the_reference",
    "test_large_logits_stay_finite_and_right",
    "test_the_native_kernel_draws_as_the_graph_does",
    "test_top_k_is_exact",
]

DEFAULT = {
    "101 x 100 - 99, theano",
    "unequal blocks and padding, theano",
    "three levels",
    "one level",
    "targets anywhere in unequal blocks, theano",
}
FEW_BLOCKS, ALL_BLOCKS = 20_000, 1 << 30  # bytes of a run
CASES = [
    pytest.param(
        (name, max_bytes),
        id=f"{name}, {max_bytes} bytes",
        marks=() if name in DEFAULT and max_bytes == FEW_BLOCKS else pytest.mark.slow,
    )
    for name in MODELS
    for max_bytes in (FEW_BLOCKS, ALL_BLOCKS)
]


@pytest.fixture(scope="module", params=CASES)
def model_and_runner(request, tmp_path_factory):
    name, max_bytes = request.param
    params = dict(MODELS[name])
    model = softmax(*params.pop("sizes"), **params)
    return model, CudaTaskRunner(model, tmp_path_factory.mktemp("graphs"), max_bytes)


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory):
    model = softmax([400], [3] * 400, num_targets=1200)
    return model, CudaTaskRunner(model, tmp_path_factory.mktemp("graphs"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one level", "unequal blocks and padding, theano"])
def test_draws_are_those_of_the_portable_graph(name, tmp_path):
    """Cumulative sums in float64 differ in their last bits, which decide one draw in 10^12."""
    params = dict(MODELS[name])
    model = softmax(*params.pop("sizes"), **params)
    feeds = {"hidden": hidden_for(model, 4), "noise": noise(7, 4, 500, len(model.levels))}
    target, log_prob = CudaTaskRunner(model, tmp_path)("sample", **feeds)
    expected_target, expected_log_prob = TaskRunner(model, tmp_path)("sample", **feeds)
    np.testing.assert_array_equal(target, expected_target)
    np.testing.assert_allclose(log_prob, expected_log_prob, **TOLERANCE)


def test_empty_queries_get_empty_answers(model_and_runner):
    model, run = model_and_runner
    none, nothing = hidden_for(model, 0), np.zeros(0, np.int64)
    assert run("log_probs", hidden=none)[0].shape == (0, model.num_targets)
    assert run("target_log_prob", hidden=none, row=nothing, target=nothing)[0].shape == (0,)
    assert [len(part) for part in run.top_k(none, 1)] == [0] * 4
    of_none = np.zeros((0, 3, len(model.levels)), np.float32)
    assert run("sample", hidden=none, noise=of_none)[0].shape == (0, 3)


def test_a_row_opens_blocks_in_rounds_until_there_is_proof(many_blocks, tmp_path):
    model, run = many_blocks
    hidden = hidden_for(model, 6, 5.0)
    log_prob, target, blocks, exact = run.top_k(hidden, 5)
    assert_top_k(model, hidden, (log_prob, target), 5)
    assert exact.all()
    assert set(blocks.tolist()) <= {4, 16, 32}


def test_a_flat_row_beside_a_peaked_one_opens_all_blocks(tmp_path):
    model = softmax([400], [3] * 400)
    for level in model.levels:
        level.bias[:] = 0
    hidden = np.concatenate([hidden_for(model, 2, 9.0), np.zeros((1, 6), np.float32)])
    log_prob, target, blocks, exact = CudaTaskRunner(model, tmp_path).top_k(hidden, 5)
    assert_top_k(model, hidden, (log_prob, target), 5)
    assert exact.all()
    assert (blocks < 400).tolist() == [True, True, False]


def test_ties_go_to_the_lower_target_within_and_across_blocks(tmp_path):
    """Blocks have more tied targets than k, in another order than their rows."""
    rows = np.random.default_rng(0).permutation(600)
    for target_rows, num_targets in ((rows, 600), (None, 590)):
        model = softmax([60], [10] * 60, num_targets=num_targets, target_rows=target_rows)
        for level in model.levels:
            level.weight[:] = 0
            level.bias[np.isfinite(level.bias)] = 0
        model.levels[0].bias[[7, 50]] = 30.0
        log_prob, target, _, exact = CudaTaskRunner(model, tmp_path).top_k(
            np.ones((2, 6), np.float32), 8
        )
        likely = np.isin(model.rows // 10, [7, 50])
        np.testing.assert_array_equal(target, [np.flatnonzero(likely)[:8]] * 2)
        assert exact.all()
        assert (log_prob == log_prob[0, 0]).all()


def test_a_block_with_many_calls_takes_several_lines(tmp_path):
    """One block has most of the pairs; its calls must not widen the lines of all others."""
    model = softmax([30], [8] * 30)
    rng = np.random.default_rng(5)
    hidden = hidden_for(model, 200)
    row = rng.integers(0, 200, 2000)
    target = np.where(rng.random(2000) < 0.9, 17, rng.integers(0, model.num_targets, 2000))
    run = CudaTaskRunner(model, tmp_path, ALL_BLOCKS)
    actual = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(actual, reference.log_probs(model, hidden)[row, target], **TOLERANCE)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_weights_of_every_precision_become_float32_on_the_device(precision, tmp_path):
    """Hidden rows are not rounded, as native kernels do not round them either."""
    model = softmax([5], [3, 1, 12, 2, 7])
    run = CudaTaskRunner(model, tmp_path, precision=precision)
    hidden = hidden_for(model, 5)
    full = reference.log_probs(run.model, hidden)
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **TOLERANCE)
    assert_top_k(run.model, hidden, run.top_k(hidden, 4), 4)
