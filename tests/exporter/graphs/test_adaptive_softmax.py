"""Tests of the adaptive softmax graphs against the reference."""

import numpy as np
import pytest

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import adaptive_softmax, attributes, from_tensors
from hsoftmax.models.adaptive_softmax import build_projected
from tests.models.adaptive import adaptive
from tests.models.strategies import hidden_for

from .task_runner import TOLERANCE, TaskRunner, assert_every_target

MODELS = {
    "one tail": {"shortlist": 5, "sizes": (7,)},
    "two tails with projections and head bias": {
        "shortlist": 5, "sizes": (7, 9), "widths": (3, 1), "head_bias": True
    },
    "four tails, div 2": {
        "shortlist": 8, "sizes": (4, 8, 16, 3), "widths": (4, 2, 1, 1), "hidden": 8
    },
    "tails of width 0": {"shortlist": 3, "sizes": (4, 5), "widths": (0, 0)},
    "a projected head and biases everywhere": {
        "shortlist": 1, "sizes": (1, 7), "widths": (0, 2), "head_width": 4, "head_bias": True,
        "tail_bias": True,
    },
}  # fmt: skip


def as_stored(model, precision):
    """The model that the stored weights represent."""
    return from_tensors("AdaptiveSoftmax", stored_tensors(model, precision), attributes(model))


CASES = [(name, precision) for precision in ("fp32", "bf16", "int8") for name in MODELS] + [
    ("a projected head and biases everywhere", "fp16")
]


@pytest.fixture(scope="module", params=CASES, ids=map(", ".join, CASES))
def model_and_runner(request, tmp_path_factory):
    name, precision = request.param
    model = adaptive(**MODELS[name])
    return as_stored(model, precision), TaskRunner(
        model, tmp_path_factory.mktemp("graphs"), precision
    )


@pytest.fixture
def runner(tmp_path):
    """Return a function that opens the tasks of a model."""
    return lambda model: TaskRunner(model, tmp_path)


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("batch", [1, 7])
def test_full_clusters_and_every_target_equal_the_reference(model_and_runner, batch, scale):
    model, run = model_and_runner
    hidden = hidden_for(model, batch, scale=scale)
    assert_every_target(model, run, hidden, scale)
    clusters = adaptive_softmax.cluster_log_probs(model, hidden)
    actual = run("cluster_log_probs", hidden=hidden)[0]
    np.testing.assert_allclose(actual, clusters, rtol=2e-6, atol=1e-5 * scale)


def test_pairs_may_repeat_or_skip_rows_or_be_empty(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 5)
    rng = np.random.default_rng(0)
    row, target = rng.integers(0, 5, 40) // 2 * 2, rng.integers(0, model.num_targets, 40)
    actual = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    expected = adaptive_softmax.target_log_prob(model, hidden, row, target)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)
    none = np.array([], dtype=np.int64)
    assert run("target_log_prob", hidden=hidden, row=none, target=none)[0].shape == (0,)


def test_top_k_equals_the_reference_for_every_k(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 6, scale=2)
    for k in range(1, model.num_targets + 1):
        log_prob, target, blocks, exact = run.top_k(hidden, k)
        expected, order = adaptive_softmax.top_k(model, hidden, k)
        np.testing.assert_allclose(log_prob, expected, **TOLERANCE)
        if model.head.bias is not None or model.tails[0].width:
            same = target == order
            assert same.mean() > 0.5  # equal but for targets that float32 cannot tell apart
        assert exact.all()
        assert (blocks <= len(model.tails)).all()


def test_a_result_does_not_depend_on_the_rest_of_the_batch(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 5)
    together = run.top_k(hidden, 3)
    for i in range(5):
        for one, all_rows in zip(run.top_k(hidden[i : i + 1], 3), together, strict=True):
            np.testing.assert_allclose(one[0], all_rows[i], **TOLERANCE)


def test_the_log_prob_of_a_sample_equals_the_reference(model_and_runner):
    model, run = model_and_runner
    hidden = hidden_for(model, 3)
    noise = np.random.default_rng(0).random((3, 50, 2), dtype=np.float32)
    target, log_prob = run("sample", hidden=hidden, noise=noise)
    full = adaptive_softmax.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


def test_graph_files_grow_by_a_few_kilobytes_per_tail(model_and_runner):
    model, run = model_and_runner
    assert max(run.sizes.values()) < 8_000 * (1 + len(model.tails))


@pytest.mark.parametrize("name", ["one tail", "four tails, div 2"])
def test_samples_follow_the_distribution(tmp_path, name):
    model = adaptive(**MODELS[name])
    hidden, draws = hidden_for(model, 1, scale=0.5), 40_000
    noise = np.random.default_rng(1).random((1, draws, 2), dtype=np.float32)
    target, _ = TaskRunner(model, tmp_path)("sample", hidden=hidden, noise=noise)
    expected = np.exp(adaptive_softmax.log_probs(model, hidden))[0] * draws
    counted = np.bincount(target[0], minlength=model.num_targets)
    chi_square = ((counted - expected) ** 2 / expected).sum()
    degrees = model.num_targets - 1
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("rows", [1023, 1024, 1025, 3000])
def test_a_layer_of_several_tiles_equals_the_reference(tmp_path, rows, precision):
    trained = adaptive(3, (rows, 1100), widths=(5, None), tail_bias=True)
    model, run = as_stored(trained, precision), TaskRunner(trained, tmp_path, precision)
    for batch in (1, 5):
        assert_every_target(model, run, hidden_for(model, batch, scale=0.3))
    assert max(run.sizes.values()) < 40_000


def head_selecting_model(shortlist: int, sizes: tuple[int, ...]):
    """Build a model in which row i of the head has logit hidden[i]."""
    rows = shortlist + len(sizes)
    tails = [build_projected(f"tail {i}", np.zeros((size, rows))) for i, size in enumerate(sizes)]
    return adaptive_softmax.build(build_projected("head", np.eye(rows)), tails)


def test_a_tail_is_opened_only_where_it_can_matter(runner):
    model = head_selecting_model(4, (5, 6))
    run = runner(model)
    hidden = np.array(
        [
            [9, 8, 7, 6, 0, 0],  # a frequent target
            [0, 0, 0, 0, 9, 0],  # the first tail
            [0, 0, 0, 0, 0, 9],  # the second one, so the first is never looked at
            [5, 5, 5, 5, 5.1, 5.2],  # both might hold the best, neither does
        ],
        dtype=np.float32,
    )
    log_prob, target, blocks, exact = run.top_k(hidden, 1)
    assert target[:, 0].tolist() == [0, 4, 9, 0]
    assert blocks.tolist() == [0, 1, 1, 2]
    assert exact.all()
    np.testing.assert_allclose(log_prob, adaptive_softmax.top_k(model, hidden, 1)[0], atol=1e-6)


def test_a_limited_result_is_exact_where_it_says_so(runner):
    model = head_selecting_model(4, (5, 6))
    run = runner(model)
    hidden = np.array([[9, 0, 0, 0, 0, 0], [0, 0, 0, 0, 4, 4.1]], dtype=np.float32)
    _, _, blocks, exact = run.top_k(hidden, 2, max_blocks=1)
    assert blocks.tolist() == [1, 1]  # the second best of row 0 is tied with what a tail may hold
    assert exact.tolist() == [False, False]
    expected = adaptive_softmax.top_k(model, hidden, 2)
    for unlimited in (0, 2, 5):
        _, target, blocks, exact = run.top_k(hidden, 2, max_blocks=unlimited)
        assert target.tolist() == expected[1].tolist()
        assert (blocks.tolist(), exact.all()) == ([2, 2], True)


def test_a_row_with_a_limit_goes_on_until_it_has_k_targets(runner):
    run = runner(head_selecting_model(2, (3, 4)))
    hidden = np.zeros((1, 4), dtype=np.float32)
    for k, opened, proven in [(4, 1, False), (7, 2, True)]:
        log_prob, _, blocks, exact = run.top_k(hidden, k, max_blocks=1)
        assert (blocks.tolist(), exact.tolist()) == ([opened], [proven])
        assert np.isfinite(log_prob).all()


def test_equal_probabilities_go_to_the_lower_target(runner):
    model = head_selecting_model(3, (4, 4))
    hidden = np.array([[-9, -9, -9, 1, 1], [-9, -9, -9, 1, 1.5]], dtype=np.float32)
    _, target, _, _ = runner(model).top_k(hidden, 8)
    assert target.tolist() == [[3, 4, 5, 6, 7, 8, 9, 10], [7, 8, 9, 10, 3, 4, 5, 6]]


def test_many_rows_are_answered_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("hsoftmax.exporter.graphs.projected._MAX_LOGITS_PER_CHUNK", 1)
    monkeypatch.setattr("hsoftmax.exporter.graphs.projected._MIN_ROWS_PER_CHUNK", 3)
    model = adaptive(**MODELS["four tails, div 2"])
    run, hidden = TaskRunner(model, tmp_path), hidden_for(model, 11, scale=2)
    rng = np.random.default_rng(0)
    row, target = rng.integers(0, 11, 100), rng.integers(0, model.num_targets, 100)
    np.testing.assert_allclose(
        run("target_log_prob", hidden=hidden, row=row, target=target)[0],
        adaptive_softmax.target_log_prob(model, hidden, row, target),
        **TOLERANCE,
    )
    log_prob, best, _, exact = run.top_k(hidden, 9)
    expected, order = adaptive_softmax.top_k(model, hidden, 9)
    np.testing.assert_allclose(log_prob, expected, **TOLERANCE)
    assert best.tolist() == order.tolist()
    assert exact.all()
