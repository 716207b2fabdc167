"""Tests of the binary tree reference and of the checks of trees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.models import QueryError, WeightsError
from hsoftmax.models.huffman_softmax import build, largest_logit, log_probs, target_log_prob, top_k
from hsoftmax.models.tree_paths import encode_leaf

from .strategies import hidden_for
from .trees import huffman_softmaxes, random_paths

TREE = {  # 0: (target 1, 1: (target 0, target 2))
    "path": np.array([[0, 1], [0, 0], [0, 1]]),
    "sign": np.array([[1, -1], [-1, 0], [1, 1]]),
}


def tree(**changes):
    parts = {"syn1": np.zeros((2, 3)), **TREE} | changes
    return build(parts.pop("syn1"), **parts)


@given(huffman_softmaxes())
def test_probabilities_sum_to_one_over_any_tree(model):
    total = np.exp(log_probs(model, hidden_for(model))).sum(axis=1)
    np.testing.assert_allclose(total, 1)


@given(huffman_softmaxes())
def test_a_walk_down_the_children_is_the_path(model):
    for target in range(model.num_targets):
        node_or_leaf = model.path[target, 0] if model.num_targets > 1 else encode_leaf(target)
        for node, sign in zip(model.path[target], model.sign[target], strict=True):
            if sign:
                assert node_or_leaf == node
                node_or_leaf = model.children[node, int(sign > 0)]
        assert node_or_leaf == encode_leaf(target)


def test_log_probs_equal_values_computed_by_hand():
    model = tree(syn1=np.array([[np.log(3.0), 0, 0], [0, np.log(4.0), 0]]))
    actual = np.exp(log_probs(model, np.array([[1.0, 1.0, 0.0]])))
    np.testing.assert_allclose(actual, [[0.75 * 0.2, 0.25, 0.75 * 0.8]], rtol=1e-6)


@given(huffman_softmaxes())
def test_a_bias_is_the_weight_of_a_hidden_value_of_one(model):
    """Each step adds the bias of its node to the logit, as one more column of weights would."""
    bias = np.arange(model.num_nodes) - 1.5
    biased = build(model.syn1, model.path, model.sign, bias=bias)
    widened = build(np.column_stack([model.syn1, bias]), model.path, model.sign)
    hidden = hidden_for(model)
    expected = log_probs(widened, np.pad(hidden, [(0, 0), (0, 1)], constant_values=1))
    np.testing.assert_allclose(log_probs(biased, hidden), expected, rtol=1e-12, atol=1e-12)
    row, target = np.zeros(model.num_targets, dtype=int), np.arange(model.num_targets)
    alone = target_log_prob(biased, hidden, row, target)
    np.testing.assert_allclose(alone, expected[0], rtol=1e-12, atol=1e-12)


def test_fasttext_scores_add_an_epsilon_to_every_step():
    model = tree(compat="fasttext")
    step = np.log(0.5 + 1e-5)
    np.testing.assert_allclose(
        log_probs(model, np.zeros((1, 3))), [[2 * step, step, 2 * step]], rtol=1e-12
    )
    sure = tree(syn1=np.full((2, 3), 1e4), compat="fasttext")
    assert np.isfinite(log_probs(sure, np.ones((1, 3)))).all()
    assert target_log_prob(sure, np.ones((1, 3)), np.array([0]), np.array([2])) > 0


def test_a_single_target_has_probability_one():
    for path, sign in [(np.zeros((1, 0), int), np.zeros((1, 0), int)), ([[-1]], [[0]])]:
        model = build(np.empty((0, 3)), np.array(path), np.array(sign))
        assert (model.num_targets, model.depth) == (1, 1)
        assert log_probs(model, np.ones((2, 3))).tolist() == [[0], [0]]
        assert top_k(model, np.ones((1, 3)), 1)[1].tolist() == [[0]]
        assert largest_logit(model, np.ones((1, 3))) == 0


def test_padding_may_be_0_or_minus_1_and_rows_may_be_unused():
    usual = tree(syn1=np.ones((5, 3)))
    other = tree(syn1=np.ones((5, 3)), path=np.array([[0, 1], [0, -1], [0, 1]], dtype=np.int8))
    np.testing.assert_array_equal(usual.path, other.path)
    assert usual.path.dtype == np.int32
    assert usual.sign.dtype == np.int8


def test_depth_is_that_of_the_deepest_leaf():
    wide = tree(
        path=np.pad(TREE["path"], [(0, 0), (0, 7)]), sign=np.pad(TREE["sign"], [(0, 0), (0, 7)])
    )
    assert wide.depth == 2


@given(st.integers(2, 30), st.integers(0, 1000))
def test_a_tree_with_one_changed_step_is_refused_or_another_tree(num_targets, seed):
    """After any change, the model is refused or its probabilities still sum to one."""
    rng = np.random.default_rng(seed)
    path, sign = random_paths(num_targets, rng)
    target, step = rng.integers(num_targets), rng.integers(path.shape[1])
    path, sign = path.copy(), sign.copy()
    if rng.random() < 0.5:
        path[target, step] = rng.integers(-1, num_targets)
    else:
        sign[target, step] = rng.integers(-1, 2)
    try:
        model = build(rng.normal(size=(num_targets - 1, 4)), path, sign)
    except WeightsError:
        return
    np.testing.assert_allclose(np.exp(log_probs(model, hidden_for(model))).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"syn1": np.zeros(3)}, r"syn1: expected \[nodes, hidden_size\], got \[3\]"),
        ({"syn1": np.zeros((2, 0))}, r"hidden_size: expected at least 1, got 0"),
        ({"syn1": np.full((2, 3), np.nan)}, r"syn1: expected finite float32 values, got nan"),
        ({"sign": np.zeros((3, 3), int)}, r"sign: expected \[3, 2\], got \[3, 3\]"),
        ({"path": np.zeros((3, 2))}, r"path: expected integers, got dtype float64"),
        ({"syn1": np.zeros((1, 3))}, r"path: expected nodes 0 to 0, got 1 at step 1 of target 0"),
        ({"sign": TREE["sign"] * 2}, r"sign: expected -1, 0 or 1, got 2 at step 0 of target 0"),
        (
            {"sign": np.array([[1, -1], [0, -1], [1, 1]])},
            r"sign: expected padding only after the last step, got -1 at step 1 of target 1",
        ),
        (
            {"path": np.array([[0, 1], [0, 7], [0, 1]])},
            r"path: expected padding of 0 or -1, got 7 at step 1 of target 1",
        ),
        (
            {"sign": np.array([[1, -1], [0, 0], [1, 1]])},
            r"one binary tree .*: target 1 has no step",
        ),
        (
            {"path": np.array([[0, 1], [1, 0], [0, 1]])},
            r"target 0 starts at node 0, target 1 at 1",
        ),
        (
            {"sign": np.array([[1, -1], [1, 0], [1, 1]])},
            r"branch \+1 of node 0 leads to target 1 on .* target 1, and elsewhere to node 1",
        ),
        (
            {"sign": np.array([[1, 1], [-1, 0], [1, 1]])},
            r"branch \+1 of node 1 leads to target 0 on .* target 0, and elsewhere to target 2",
        ),
        (
            {"path": TREE["path"][:2], "sign": TREE["sign"][:2]},
            r"branch \+1 of node 1 leads to no target",
        ),
        ({"path": np.zeros((0, 2), int), "sign": np.zeros((0, 2), int)}, r"at least one target"),
        ({"compat": "word2vec"}, r"compat: expected exact or fasttext, got word2vec"),
    ],
)
def test_arrays_that_do_not_make_a_tree_are_refused(changes, message):
    with pytest.raises(WeightsError, match=message):
        tree(**changes)


@pytest.mark.parametrize(
    ("path", "sign", "message"),
    [
        ([[0, 1], [0, 1]], [[-1, -1], [1, 1]], r": node 1 is the child of 2 branches$"),
        ([[1, 0], [1, 0]], [[-1, -1], [1, 1]], r": node 0 is the child of 2 branches$"),
        ([[0, 0]], [[1, -1]], r": node 0 is the root and a child$"),
        ([[1, 1]], [[1, -1]], r": node 1 is the root and a child$"),
        (
            [[1, 0], [1, 0], [1, 2], [1, 2]],
            [[-1, 1], [1, -1], [1, 1], [1, -1]],
            r"branch \+1 of node 1 leads to node 0 on the path of target 1, .* to node 2$",
        ),
    ],
)
def test_what_is_wrong_with_paths_that_reach_every_target_is_named(path, sign, message):
    """Only one of the checks refuses each case, so each check has to be there."""
    with pytest.raises(WeightsError, match=message):
        tree(path=np.array(path), sign=np.array(sign), syn1=np.zeros((3, 3)))


def test_the_largest_logit_is_the_largest_sum_of_a_path_with_log_2_for_each_step():
    model = tree(syn1=np.array([[1.0, 0, 0], [0, -4.0, 0]]))
    hidden = np.array([[1.0, 1.0, 0.0], [-2.0, 0.5, 9.0]])
    # Row 0: node 0 gives 1 and node 1 gives 4; row 1: 2 and 2. Targets 0 and 2 have both steps.
    assert largest_logit(model, hidden) == pytest.approx(5 + 2 * np.log(2))
    assert largest_logit(model, hidden[1:]) == pytest.approx(4 + 2 * np.log(2))


def test_a_loop_is_refused():
    path = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]])
    sign = np.array([[1, 1, 1], [1, 1, -1], [-1, 0, 0], [1, -1, 0]])
    with pytest.raises(WeightsError, match=r"one binary tree"):
        tree(path=path, sign=sign)


def test_a_node_of_two_parents_is_refused():
    path = np.array([[0, 1], [0, 1], [0, 1], [0, 1]])
    sign = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    with pytest.raises(WeightsError, match=r"one binary tree"):
        tree(path=path, sign=sign)


def test_invalid_queries_are_refused():
    with pytest.raises(QueryError, match=r"target: expected 0 to 2, got 3"):
        target_log_prob(tree(), np.zeros((1, 3)), np.array([0]), np.array([3]))
    with pytest.raises(QueryError, match=r"hidden: expected \[batch, 3\]"):
        log_probs(tree(), np.zeros((1, 4)))
