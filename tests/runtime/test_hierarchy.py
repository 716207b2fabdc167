"""The children of every node of every family partition it, and agree with the NumPy reference."""

import numpy as np
import pytest

from hsoftmax import models
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models.taxonomy import build_taxonomy, from_taxonomy, lay_out
from hsoftmax.runtime.hierarchy import ChildrenKernel, hierarchy_of
from hsoftmax.runtime.native import StopFlag
from tests.exporter.graphs.test_adaptive_softmax import MODELS as ADAPTIVE
from tests.exporter.graphs.test_hierarchical_softmax import MODELS as LEVELS
from tests.exporter.graphs.test_hierarchical_softmax import softmax
from tests.exporter.graphs.test_huffman_softmax import MODELS as BINARY
from tests.exporter.sources.test_tree import arrays, random_taxonomy
from tests.models.adaptive import adaptive
from tests.models.strategies import hidden_for
from tests.models.trees import random_huffman

FASTTEXT = 1e-4  # a step of fastText's scores adds twice its epsilon to the sum of two branches


def level_model(sizes, **kwargs) -> models.Model:
    return softmax(*sizes, **kwargs)


def binary_model(**kwargs) -> models.Model:
    return random_huffman(hidden_size=6, **kwargs)


def deep_tree() -> models.Model:
    content = arrays(random_taxonomy(150, 9, seed=3))
    layout = lay_out(build_taxonomy(content["parent"]))
    return from_taxonomy(content["weight"], content["bias"], layout)


CASES = {
    **{f"levels, {name}": (level_model, kwargs) for name, kwargs in LEVELS.items()
       if "101" not in name and "tile" not in name},
    **{f"adaptive, {name}": (adaptive, kwargs) for name, kwargs in ADAPTIVE.items()},
    **{f"binary, {name}": (binary_model, kwargs) for name, kwargs in BINARY.items()},
    "a deep tree": (deep_tree, {}),
}  # fmt: skip


def opened(model: models.Model, precision: str = "fp32"):
    """Return the hierarchy of the stored model, and the model that the stored weights are."""
    tensors, family = stored_tensors(model, precision), models.family(model)
    stored = from_tensors(family, tensors, attributes(model))
    return hierarchy_of(family, tensors, attributes(model), model.num_targets), stored


def answer(hierarchy, hidden, node):
    """Return log p of the path and of the children, by the kernel."""
    feeds = {"hidden": hidden, "node": np.array([-1 if node is None else node])}
    (log_probs,) = ChildrenKernel(hierarchy)(feeds)
    steps = 1 + len(hierarchy.path(node))
    return log_probs[:, :steps], log_probs[:, steps:]


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, "fp32") for name in CASES]
    + [(name, "int8") for name in CASES if "biases" in name or "three" in name or "deep" in name]
    + [("levels, unequal blocks", "bf16"), ("levels, three equal levels", "fp16")],
)
def test_children_partition_their_node_down_to_the_targets(name, precision):
    build, kwargs = CASES[name]
    hierarchy, model = opened(build(**kwargs), precision)
    hidden = hidden_for(model, 2, scale=0.5)
    expected = models.FAMILIES[models.family(model)].log_probs(model, hidden)
    has_padding = getattr(model, "padding", "mask") == "theano"
    tolerance = FASTTEXT if getattr(model, "compat", "exact") == "fasttext" else 1e-5
    targets, waiting = [], [(None, np.zeros(2), ())]
    while waiting:
        node, log_prob, path = waiting.pop()
        assert hierarchy.path(node) == path
        assert node is None or (node in hierarchy.nodes and hierarchy.has_node(node))
        children = hierarchy.children(node)
        of_path, of_children = answer(hierarchy, hidden, node)
        np.testing.assert_allclose(of_path[:, -1], log_prob, atol=1e-5)
        total, own = np.exp(of_children).sum(axis=1), np.exp(log_prob)
        if has_padding:
            assert (total <= own + 1e-5).all()
        else:
            np.testing.assert_allclose(total, own, rtol=10 * tolerance, atol=tolerance)
        if node is not None:
            assert hierarchy.num_targets(node) == children.num_targets.sum()
        leaves = np.flatnonzero(children.target >= 0)
        found = children.target[leaves].tolist()
        np.testing.assert_allclose(of_children[:, leaves], expected[:, found], atol=1e-4)
        assert (children.num_targets[leaves] == 1).all()
        assert {hierarchy.parent(target) for target in found} <= {node}
        targets += found
        for i in np.flatnonzero(children.target < 0):
            child = int(children.node[i])
            waiting.append((child, of_children[:, i], (*path, child)))
    assert sorted(targets) == list(range(model.num_targets))


def test_a_row_alone_in_its_block_is_the_place_of_the_row_above():
    """Level 0 has rows 0 and 1, level 1 rows 2 to 4, of which row 2 is alone, level 2 the rest."""
    hierarchy, model = opened(softmax([2], [1, 2], [3, 1, 2]))
    assert hierarchy.children(None).node.tolist() == [0, 1]
    assert hierarchy.children(0).target.tolist() == [0, 1, 2]  # not its only child, row 2
    assert hierarchy.path(2) == (0,)
    assert hierarchy.children(1).target.tolist() == [3, -1]  # row 3 has one row below it
    assert hierarchy.children(1).node.tolist() == [3, 4]
    assert hierarchy.children(3).target.tolist() == [3]
    hidden = hidden_for(model, 3)
    np.testing.assert_array_equal(answer(hierarchy, hidden, 2)[1], answer(hierarchy, hidden, 0)[1])


def test_a_run_stops():
    hierarchy, model = opened(softmax([2], [3, 3]))
    stop = StopFlag()
    stop.set(True)
    feeds = {"hidden": hidden_for(model, 1), "node": np.array([1])}
    with pytest.raises(InterruptedError):
        ChildrenKernel(hierarchy)(feeds, stop)
