"""Tests of an adaptive softmax's graphs for CUDA, on the CPU: the checks of the portable graphs."""

import numpy as np
import pytest

from hsoftmax.models.seeded_noise import noise
from tests.models.adaptive import adaptive
from tests.models.strategies import hidden_for

from .task_runner import TOLERANCE, CudaTaskRunner, TaskRunner
from .test_adaptive_softmax import (
    MODELS,
    test_a_limited_result_is_exact_where_it_says_so,
    test_a_result_does_not_depend_on_the_rest_of_the_batch,
    test_a_row_with_a_limit_goes_on_until_it_has_k_targets,
    test_a_tail_is_opened_only_where_it_can_matter,
    test_equal_probabilities_go_to_the_lower_target,
    test_full_clusters_and_every_target_equal_the_reference,
    test_pairs_may_repeat_or_skip_rows_or_be_empty,
    test_the_log_prob_of_a_sample_equals_the_reference,
    test_top_k_equals_the_reference_for_every_k,
)

__all__ = [
    "test_a_limited_result_is_exact_where_it_says_so",
    "test_a_result_does_not_depend_on_the_rest_of_the_batch",
    "test_a_row_with_a_limit_goes_on_until_it_has_k_targets",
    "test_a_tail_is_opened_only_where_it_can_matter",
    "test_equal_probabilities_go_to_the_lower_target",
    "test_full_clusters_and_every_target_equal_the_reference",
    "test_pairs_may_repeat_or_skip_rows_or_be_empty",
    "test_the_log_prob_of_a_sample_equals_the_reference",
    "test_top_k_equals_the_reference_for_every_k",
]


DEFAULT = {
    "two tails with projections and head bias",
    "tails of width 0",
}  # the others are slow tests
CASES = [
    pytest.param(params, id=name, marks=() if name in DEFAULT else pytest.mark.slow)
    for name, params in MODELS.items()
]


@pytest.fixture(scope="module", params=CASES)
def model_and_runner(request, tmp_path_factory):
    model = adaptive(**request.param)
    return model, CudaTaskRunner(model, tmp_path_factory.mktemp("graphs"), max_bytes=400)


@pytest.fixture
def runner(tmp_path):
    return lambda model: CudaTaskRunner(model, tmp_path)


@pytest.mark.slow
def test_draws_are_those_of_the_portable_graph(tmp_path):
    model = adaptive(**MODELS["four tails, div 2"])
    feeds = {"hidden": hidden_for(model, 4), "noise": noise(7, 4, 300, 2)}
    target, log_prob = CudaTaskRunner(model, tmp_path)("sample", **feeds)
    expected_target, expected_log_prob = TaskRunner(model, tmp_path)("sample", **feeds)
    np.testing.assert_array_equal(target, expected_target)
    np.testing.assert_allclose(log_prob, expected_log_prob, **TOLERANCE)
