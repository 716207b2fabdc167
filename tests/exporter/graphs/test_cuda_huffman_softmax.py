"""Tests of a binary tree's graphs for CUDA, on the CPU: the checks of the portable graphs."""

import numpy as np
import pytest

from hsoftmax.exporter.graphs.cuda import cuda_graphs
from hsoftmax.models import huffman_softmax
from hsoftmax.models.seeded_noise import noise
from tests.models.strategies import hidden_for
from tests.models.trees import random_huffman

from .task_runner import TOLERANCE, CudaTaskRunner, TaskRunner
from .test_huffman_softmax import (
    MODELS,
    test_pairs_may_repeat_or_skip_rows_or_be_empty,
    test_the_distribution_and_every_target_equal_the_reference,
)

__all__ = [
    "test_pairs_may_repeat_or_skip_rows_or_be_empty",
    "test_the_distribution_and_every_target_equal_the_reference",
]

TREES = {name: params for name, params in MODELS.items() if params["num_targets"] > 1}
DEFAULT = {"a chain", "fastText's scores", "biases"}  # the others are slow tests
CASES = [
    pytest.param(params, id=name, marks=() if name in DEFAULT else pytest.mark.slow)
    for name, params in TREES.items()
]


@pytest.fixture(scope="module", params=CASES)
def model_and_runner(request, tmp_path_factory):
    model = random_huffman(hidden_size=6, **request.param)
    return model, CudaTaskRunner(model, tmp_path_factory.mktemp("graphs"), max_bytes=5_000)


def test_a_sample_has_valid_targets_and_their_log_prob(model_and_runner):
    model, run = model_and_runner
    hidden, numbers = hidden_for(model, 3), noise(3, 3, 40, model.depth)
    numbers[:, :2] = [[0.0], [1 - 2**-24]]
    target, log_prob = run("sample", hidden=hidden, noise=numbers)
    full = huffman_softmax.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a chain", "fastText's scores"])
def test_draws_are_those_of_the_portable_graph(name, tmp_path):
    model = random_huffman(hidden_size=6, **TREES[name])
    feeds = {"hidden": hidden_for(model, 4), "noise": noise(7, 4, 300, model.depth)}
    target, log_prob = CudaTaskRunner(model, tmp_path)("sample", **feeds)
    expected_target, expected_log_prob = TaskRunner(model, tmp_path)("sample", **feeds)
    same = target == expected_target
    assert same.mean() > 0.998  # rounding of a logit may decide between two branches
    np.testing.assert_allclose(log_prob[same], expected_log_prob[same], **TOLERANCE)


def test_no_rows_get_no_samples(model_and_runner):
    model, run = model_and_runner
    feeds = {"hidden": hidden_for(model, 0), "noise": np.zeros((0, 3, model.depth), np.float32)}
    assert [part.shape for part in run("sample", **feeds)] == [(0, 3), (0, 3)]
    assert run("log_probs", hidden=feeds["hidden"])[0].shape == (0, model.num_targets)


def test_logits_of_ten_thousand_stay_finite(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 3, scale=1e4)
    full = huffman_softmax.log_probs(model, hidden)
    actual = run("log_probs", hidden=hidden)[0]
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, full, rtol=1e-6, atol=1e-2)


def test_a_tree_of_one_target_has_no_graph_for_cuda():
    graphs = cuda_graphs(random_huffman(hidden_size=6, num_targets=1))
    assert (graphs.files, graphs.tasks) == ({}, {})


def test_top_k_of_a_tree_has_no_graph_for_cuda():
    """Native kernels search the tree on the CPU; the device would compute all targets for it."""
    assert "top_k" not in cuda_graphs(random_huffman(hidden_size=6, num_targets=9)).tasks
