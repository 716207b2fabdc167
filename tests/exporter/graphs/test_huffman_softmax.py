"""Tests of the binary tree graphs against the reference, and of the cost of a query."""

import dataclasses

import numpy as np
import onnx
import pytest

from hsoftmax.exporter.graphs import huffman_softmax as graph
from hsoftmax.exporter.graphs import huffman_top_k
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors, huffman_softmax
from tests.models.strategies import hidden_for
from tests.models.trees import random_huffman

from .task_runner import TOLERANCE, TaskRunner, assert_every_target

MODELS = {
    "one target": {"num_targets": 1},
    "two targets": {"num_targets": 2},
    "a balanced tree": {"num_targets": 64},
    "a chain": {"num_targets": 40, "lean": 0.0},
    "unused rows": {"num_targets": 300, "lean": 0.2, "unused": 5},
    "biases": {"num_targets": 70, "lean": 0.3, "unused": 1, "biases": True},
    "fastText's scores": {"num_targets": 90, "lean": 0.3, "compat": "fasttext"},
}
WAYS = ["looked up", "by depth, descending"]
CASES = [(name, way, "fp32") for name in MODELS for way in WAYS] + [
    ("biases", WAYS[0], "fp16"),
    *(("biases", way, precision) for way in WAYS for precision in ("bf16", "int8")),
    ("one target", WAYS[0], "int8"),
    ("fastText's scores", WAYS[1], "int8"),
]


def as_stored(model, precision):
    """The model that the stored weights represent."""
    return from_tensors("HuffmanSoftmax", stored_tensors(model, precision), attributes(model))


@pytest.fixture(scope="module", params=CASES, ids=str)
def model_and_runner(request, tmp_path_factory):
    """Build each model twice: with the limits for small trees and with those for large trees."""
    name, way, precision = request.param
    model = random_huffman(hidden_size=6, **MODELS[name])
    with pytest.MonkeyPatch.context() as patch:
        if way != "looked up":
            patch.setattr(graph, "_MAX_TABLE_STEPS_PER_BATCH", 0)
            patch.setattr(huffman_top_k, "_MIN_SEARCH_WEIGHTS", 0)
            patch.setattr(huffman_top_k, "_MIN_TARGETS_PER_K", 0)
            patch.setattr(huffman_top_k, "_NODES_PER_TRIAL", 1)
        run = TaskRunner(model, tmp_path_factory.mktemp("graphs"), precision)
        return as_stored(model, precision), run


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_tree_of_several_tiles_equals_the_reference(tmp_path, precision):
    trained = random_huffman(2500, 5, lean=0.3)
    model, run = as_stored(trained, precision), TaskRunner(trained, tmp_path, precision)
    hidden = hidden_for(model, 3, scale=0.5)
    full = huffman_softmax.log_probs(model, hidden)
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **TOLERANCE)


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_distribution_and_every_target_equal_the_reference(model_and_runner, batch, scale):
    model, run = model_and_runner
    assert_every_target(model, run, hidden_for(model, batch, scale=scale), scale)


def test_pairs_may_repeat_or_skip_rows_or_be_empty(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 5)
    rng = np.random.default_rng(0)
    for pairs in (1, 40, 256, 257, 700):
        row, target = rng.integers(0, 5, pairs) // 2 * 2, rng.integers(0, model.num_targets, pairs)
        actual = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
        expected = huffman_softmax.target_log_prob(model, hidden, row, target)
        np.testing.assert_allclose(actual, expected, **TOLERANCE)
    none = np.array([], dtype=np.int64)
    assert run("target_log_prob", hidden=hidden, row=none, target=none)[0].shape == (0,)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_top_k_equals_the_reference(model_and_runner, scale):
    model, run = model_and_runner
    hidden = hidden_for(model, 40, scale=scale)
    full = huffman_softmax.log_probs(model, hidden)
    tolerance = {"rtol": 2e-6, "atol": 1e-5 * max(scale, 1)}
    for k in {1, min(3, model.num_targets), model.num_targets}:
        log_prob, target, blocks, exact = run.top_k(hidden, k)
        expected, order = huffman_softmax.top_k(model, hidden, k)
        np.testing.assert_allclose(log_prob, expected, **tolerance)
        np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **tolerance)
        assert all(len(set(row)) == k for row in target.tolist())
        assert exact.all()
        assert (blocks <= model.num_targets - 1).all()
        if scale == 0:
            np.testing.assert_array_equal(target, order)


def test_a_limited_result_is_exact_where_it_says_so(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 40, scale=3)
    k = min(3, model.num_targets)
    expected, _ = huffman_softmax.top_k(model, hidden, k)
    full = huffman_softmax.log_probs(model, hidden)
    for max_blocks in (1, 2, 5, 20, 1000):
        log_prob, target, _, exact = run.top_k(hidden, k, max_blocks=max_blocks)
        np.testing.assert_allclose(log_prob[exact], expected[exact], rtol=2e-6, atol=3e-5)
        assert (target < model.num_targets).all()
        np.testing.assert_allclose(
            log_prob, np.take_along_axis(full, target, axis=1), rtol=2e-6, atol=3e-5
        )
        assert (np.diff(log_prob) <= 0).all()
        if max_blocks >= model.num_targets:
            assert exact.all()
    if model.num_targets > 30:
        few = run.top_k(hidden, 1, max_blocks=model.depth)
        assert (few[2] <= model.depth + model.num_targets).all()
        assert not run.top_k(hidden * 0, 1, max_blocks=1)[3].any()


def test_a_result_does_not_depend_on_the_rest_of_the_batch(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 35, scale=2)
    together = run.top_k(hidden, 1)
    limited = run.top_k(hidden, 1, max_blocks=3)
    for i in range(35):
        for many, max_blocks in ((together, 0), (limited, 3)):
            for one, all_rows in zip(
                run.top_k(hidden[i : i + 1], 1, max_blocks), many, strict=True
            ):
                np.testing.assert_allclose(one[0], all_rows[i], **TOLERANCE)


def test_samples_follow_the_distribution(model_and_runner):
    model, run = model_and_runner
    draws, rng = 4000, np.random.default_rng(0)
    hidden = hidden_for(model, 3, scale=0.4)
    noise = rng.random((3, draws, model.depth), dtype=np.float32)
    target, log_prob = run("sample", hidden=hidden, noise=noise)
    full = huffman_softmax.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)
    for row in range(3):
        expected = np.exp(full[row]) * draws
        seen = np.bincount(target[row], minlength=model.num_targets)
        often = expected > 5
        rest = [seen[~often].sum(), expected[~often].sum()]
        chi2 = ((seen - expected)[often] ** 2 / expected[often]).sum()
        chi2 += (rest[0] - rest[1]) ** 2 / max(rest[1], 1)
        degrees = often.sum()
        assert chi2 < degrees + 5 * np.sqrt(2 * degrees) + 5


def test_logits_of_ten_thousand_stay_finite(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 2, scale=1e4)
    full = huffman_softmax.log_probs(model, hidden)
    actual = run("log_probs", hidden=hidden)[0]
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, full, rtol=1e-4, atol=1e-5)


def test_graphs_are_small(model_and_runner):
    _, run = model_and_runner
    assert max(run.sizes.values()) < 32_000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Build a model that is searched because the limit for a search is lowered."""
    model = random_huffman(20_000, 256, lean=0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huffman_top_k, "_MIN_SEARCH_WEIGHTS", 1 << 22)
        return model, TaskRunner(model, tmp_path_factory.mktemp("large"))


def test_empty_tensors_have_no_external_data(tmp_path):
    TaskRunner(random_huffman(hidden_size=6, num_targets=2), tmp_path)
    graphs = [onnx.load(path, load_external_data=False).graph for path in tmp_path.glob("*.onnx")]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    assert any(0 in tensor.dims for tensor in tensors)
    for tensor in tensors:
        assert bool(tensor.external_data) == (0 not in tensor.dims)


def test_a_peaked_row_opens_few_nodes_and_a_flat_one_uses_the_full_distribution(large):
    model, run = large
    sure = model.syn1[model.path[[7, 8], :]] * model.sign[[7, 8], :, None]
    hidden = np.concatenate([sure.sum(axis=1) / 40, hidden_for(model, 2) * 1e-4])
    log_prob, target, blocks, exact = run.top_k(hidden, 5)
    expected, order = huffman_softmax.top_k(model, hidden, 5)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(target[:2], order[:2])
    assert exact.all()
    assert (blocks[:2] < 500).all()
    assert (blocks[2:] == model.num_targets - 1).all()


def test_a_query_reads_the_vectors_of_its_path_and_no_other(large, tmp_path):
    model, _ = large
    target = int(np.argmin(model.lengths))
    own = model.path[target, : model.lengths[target]]
    spoilt = np.full_like(model.syn1, np.nan)
    spoilt[own] = model.syn1[own]
    spoilt[0] = 0  # where padding points
    run = TaskRunner(dataclasses.replace(model, syn1=spoilt), tmp_path)
    hidden, row = hidden_for(model, 1), np.array([0])
    np.testing.assert_allclose(
        run("target_log_prob", hidden=hidden, row=row, target=np.array([target]))[0],
        huffman_softmax.target_log_prob(model, hidden, row, np.array([target])),
        rtol=1e-5,
    )


def test_many_pairs_with_paths_of_many_lengths_equal_the_reference(large):
    model, run = large
    hidden = hidden_for(model, 4, scale=0.1)
    target = np.random.default_rng(1).integers(0, model.num_targets, 1000)
    row = target % 4
    np.testing.assert_allclose(
        run("target_log_prob", hidden=hidden, row=row, target=target)[0],
        huffman_softmax.target_log_prob(model, hidden, row, target),
        rtol=1e-5,
        atol=1e-5,
    )
    full = run("log_probs", hidden=hidden)[0]
    np.testing.assert_allclose(full, huffman_softmax.log_probs(model, hidden), rtol=1e-5, atol=1e-5)
