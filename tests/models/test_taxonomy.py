"""Trees with leaves at any depth: answers are the products of softmaxes over siblings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsoftmax.models import WeightsError, hierarchical_softmax
from hsoftmax.models.taxonomy import build_taxonomy, from_taxonomy, inner_nodes, lay_out

H = 3


def model_of(parent, weight, bias):
    return from_taxonomy(weight, bias, lay_out(build_taxonomy(np.array(parent))))


def weights(nodes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(nodes, H)).astype(np.float32), rng.normal(size=nodes).astype(np.float32)


def node_log_probs(parent, weight, bias, hidden):
    """Return log p of every node, [batch, nodes]: each the parent's plus that among siblings."""
    logits = hidden @ weight.T.astype(np.float64) + bias
    result = np.full(logits.shape, np.nan)
    siblings = {p: [n for n, q in enumerate(parent) if q == p] for p in set(parent)}
    waiting = [-1]
    while waiting:
        above = waiting.pop()
        nodes = siblings.get(above, [])
        if nodes:
            z = logits[:, nodes]
            local = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
            result[:, nodes] = local + (0 if above == -1 else result[:, [above]])
            waiting += nodes
    return result


@st.composite
def parents(draw) -> list[int]:
    """Draw the parents of up to 24 nodes, which are numbered in any order."""
    size = draw(st.integers(1, 24))
    above = [draw(st.integers(-1, node - 1)) for node in range(size)]
    order = draw(st.permutations(range(size)))
    shuffled = [0] * size
    for node, parent in enumerate(above):
        shuffled[order[node]] = -1 if parent < 0 else order[parent]
    return shuffled


@given(parents())
@example([-1])
@example([-1, -1])
@example([-1, 0, 1, 2])  # a chain
@example([-1, 0, 0, 1, 1, 3, 3, 5, 5])  # a leaf at every depth
@example([2, 2, -1, 0, 0])
@example([-1, 0, 1, 1, -1])  # an only child between two blocks
def test_the_answers_are_the_products_along_each_path(parent):
    weight, bias = weights(len(parent))
    hidden = np.random.default_rng(1).normal(size=(4, H))
    model = model_of(parent, weight, bias)
    leaves = [node for node in range(len(parent)) if node not in parent]
    expected = node_log_probs(parent, weight, bias, hidden)[:, leaves]
    actual = hierarchical_softmax.log_probs(model, hidden)
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(actual).sum(axis=1), 1, rtol=1e-12)


@given(parents())
def test_a_row_that_only_continues_changes_no_bit(parent):
    layout = lay_out(build_taxonomy(np.array(parent)))
    model = from_taxonomy(*weights(len(parent)), layout)
    hidden = np.random.default_rng(2).normal(size=(3, H)).astype(np.float32) * 100
    for level, rows in zip(model.levels, layout.levels, strict=True):
        continued = rows.nodes == -1
        assert (level.block_sizes[level.block_of_row[continued]] == 1).all()
        assert (level.weight[continued] @ hidden.T + level.bias[continued, None] == 0).all()


def test_blocks_stand_as_deep_as_their_leaves_allow():
    """The block of nodes 1 and 2 has leaves alone: it is on the last level, one row leads to it."""
    parent = np.array([-1, 0, 0, -1, 3, 3, 5, 5])
    layout = lay_out(build_taxonomy(parent))
    assert [level.nodes.tolist() for level in layout.levels] == [
        [0, 3], [-1, 4, 5], [1, 2, -1, 6, 7],
    ]  # fmt: skip
    assert layout.target_rows.tolist() == [0, 1, 2, 3, 4]


def test_a_balanced_tree_needs_no_further_row():
    parent = np.array([-1, -1, 0, 0, 1, 1, 1])
    layout = lay_out(build_taxonomy(parent))
    assert layout.num_rows == len(parent)


def test_one_root_has_no_softmax():
    weight, bias = weights(4)
    hidden = np.ones((1, H))
    answers = []
    for factor in (1, 50):
        changed = weight.copy()
        changed[0] *= factor
        answers.append(
            hierarchical_softmax.log_probs(model_of([-1, 0, 0, 0], changed, bias), hidden)
        )
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ([], r"parent: expected at least one node, got none"),
        ([-1, 5], r"parent: expected 0 to 1, or -1 for a root, got 5 for node 1"),
        ([-2, 0], r"parent: expected 0 to 1, or -1 for a root, got -2 for node 0"),
        ([0, 0], r"parent: expected -1 for a root, got node 0 as its own parent"),
        ([-1, 2, 3, 1, 0], r"each node has a root above it, got a cycle of nodes 1, 2, 3: set the"),
        ([-1, 2, 1, 1], r"got a cycle of nodes 1, 2: set the par"),
        ([*range(1, 9), 0], r"got a cycle of nodes 0, 1, 2, 3, 4 and 4 more: "),
        ([[-1]], r"parent: expected \[nodes\], got \[1, 1\]"),
        ([-1.0], r"parent: expected integers, got dtype float64"),
    ],
)
def test_parents_that_are_no_tree_are_one_line(parent, message):
    with pytest.raises(WeightsError, match=message) as raised:
        build_taxonomy(np.array(parent) if parent else np.array(parent, dtype=np.int64))
    assert "\n" not in str(raised.value)


def comb(depth: int) -> np.ndarray:
    """Return a tree in which each inner node has a leaf and a deeper inner node."""
    return np.array([-1, *(2 * (node // 2) for node in range(2 * depth))])


def test_trees_that_are_too_deep_are_one_line():
    lay_out(build_taxonomy(comb(64)))
    with pytest.raises(WeightsError, match=r"at most 64 levels of nodes with siblings, got 65"):
        lay_out(build_taxonomy(comb(65)))
    assert len(lay_out(build_taxonomy(np.arange(-1, 999))).levels) == 1
    with pytest.raises(WeightsError, match=r"parent: expected at most 1000 levels, got more"):
        build_taxonomy(np.arange(-1, 5000))


@pytest.mark.parametrize("seed", range(20))
def test_an_inner_node_has_the_probability_of_the_leaves_below_it(seed):
    """Every tree of a dozen nodes: several roots, chains of only children, a root alone."""
    rng = np.random.default_rng(seed)
    parent = np.array([-1, *(int(rng.integers(-1 if seed % 2 else 0, i)) for i in range(1, 12))])
    weight, bias = rng.normal(size=(12, 3)), rng.normal(size=12)
    hidden = rng.normal(size=(4, 3)).astype(np.float32)
    tree = build_taxonomy(parent)
    layout = lay_out(tree)
    model = from_taxonomy(weight, bias, layout)
    model = replace(model, inner=inner_nodes(tree, layout, tree.inner))
    leaf_probs = np.exp(hierarchical_softmax.log_probs(model, hidden))
    row, node = np.divmod(np.arange(4 * model.num_inner), model.num_inner)
    got = hierarchical_softmax.target_log_prob(model, hidden, row, model.num_targets + node)
    below = [[_is_below(parent, leaf, n) for leaf in tree.leaves] for n in tree.inner]
    expected = leaf_probs @ np.array(below).T
    np.testing.assert_allclose(np.exp(got).reshape(4, -1), expected, rtol=1e-12)
    of_nodes = node_log_probs(parent.tolist(), weight, bias, hidden)[:, tree.inner]
    np.testing.assert_allclose(got.reshape(4, -1), of_nodes, atol=1e-6)


def _is_below(parent, leaf: int, node: int) -> bool:
    while leaf >= 0 and leaf != node:
        leaf = int(parent[leaf])
    return leaf == node
