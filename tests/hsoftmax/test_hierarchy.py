"""`hsoftmax inspect` draws the hierarchy: clusters, nodes, how many targets each has, and some."""

import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.hierarchy import draw_hierarchy

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


@pytest.fixture
def drawing(tmp_path, capsys):
    """Function that exports arrays and returns the lines of the drawing of `inspect`."""

    def drawing(source: str, labels: list[str] | None = None, **arrays) -> list[str]:
        np.savez(tmp_path / "weights.npz", **arrays)
        to = str(tmp_path / "repository" / "drawn")
        options = []
        if labels is not None:
            (tmp_path / "labels.txt").write_text("\n".join(labels))
            options = ["--labels", str(tmp_path / "labels.txt")]
        weights = str(tmp_path / "weights.npz")
        assert run(["export", weights, "--from", source, "--to", to, *options]) == 0
        capsys.readouterr()
        assert run(["inspect", to]) == 0
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        starts = [i for i, line in enumerate(lines) if line.startswith("hierarchy")]
        return lines[starts[0] :] if starts else []

    return drawing


def test_clusters_have_their_numbers_of_targets_and_the_first_ones(drawing):
    labels = [f"word{i}" for i in range(22)]
    lines = drawing(
        "theano", labels,
        W1=normal(3, 6), b1=normal(6), W2=normal(6, 3, 4), b2=normal(6, 4), n_outputs=22,
    )  # fmt: skip
    assert lines == [
        "hierarchy: 22 targets, 2 levels of 6, 24 rows",
        "├── cluster 0: 4 targets (word0, word1, word2, …)",
        "├── cluster 1: 4 targets (word4, word5, word6, …)",
        "├── cluster 2: 4 targets (word8, word9, word10, …)",
        "├── … 2 more clusters",
        "└── cluster 5: 2 targets (word20, word21)",
    ]


def test_a_cluster_of_padding_alone_has_no_targets(drawing):
    lines = drawing(
        "theano", W1=normal(3, 3), b1=normal(3), W2=normal(3, 3, 2), b2=normal(3, 2), n_outputs=4
    )
    assert lines[-2:] == ["├── cluster 1: 2 targets (2, 3)", "└── cluster 2: 0 targets"]


def test_nodes_of_a_taxonomy_have_their_labels_and_leaves_stand_at_their_depth(drawing):
    names = ["animal", "plant", "dog", "fish", "moss", "trout", "cod", "poodle" * 9, "beagle"]
    parent = [-1, -1, 0, 0, 1, 3, 3, 2, 2]
    lines = drawing("tree", names, weight=normal(9, 3), bias=normal(9), parent=np.array(parent))
    assert lines == [
        "hierarchy: 5 targets, 3 levels of 2, 3, 5 rows",
        "├── cluster 0 animal: 4 targets (poodlepoodlepoodlepoodlepoodl…, beagle, trout, …)",
        "│   ├── node 2 dog: 2 targets (poodlepoodlepoodlepoodlepoodl…, beagle)",
        "│   └── node 3 fish: 2 targets (trout, cod)",
        "└── plant > moss",
    ]


def test_a_node_of_a_chain_has_the_labels_from_the_upper_one_down(drawing):
    names = ["carnivore", "cat", "mammal", "life", "dog", "plant", "tree", "oak", "elm", "fish"]
    # In the file carnivore stands before mammal, its parent.
    parent = [2, 0, 3, -1, 0, 3, 5, 6, 6, 3]
    lines = drawing("tree", names, weight=normal(10, 3), bias=normal(10), parent=np.array(parent))
    assert lines == [
        "hierarchy of life: 5 targets, 2 levels of 3, 5 rows",
        "├── cluster 0 mammal > carnivore: 2 targets (cat, dog)",
        "├── cluster 1 plant > tree: 2 targets (oak, elm)",
        "└── fish",
    ]


def test_rows_that_continue_a_row_are_not_drawn(drawing):
    """Leaves of the first root lie a level higher, so that a row alone continues it."""
    names = ["a", "b", "a1", "a2", "b1", "b2", "b11", "b12", "b21", "b22"]
    parent = [-1, -1, 0, 0, 1, 1, 4, 4, 5, 5]
    lines = drawing("tree", names, weight=normal(10, 3), bias=normal(10), parent=np.array(parent))
    assert lines == [
        "hierarchy: 6 targets, 3 levels of 2, 3, 6 rows",
        "├── cluster 0 a: 2 targets (a1, a2)",
        "└── cluster 1 b: 4 targets (b11, b12, b21, …)",
    ]


def test_an_adaptive_softmax_has_its_shortlist_and_tails(drawing):
    tails = {"tail.0.0.weight": normal(2, 4), "tail.0.1.weight": normal(3, 2),
             "tail.1.0.weight": normal(1, 4), "tail.1.1.weight": normal(5, 1)}  # fmt: skip
    lines = drawing("pytorch", **{"head.weight": normal(4, 4)}, **tails)
    assert lines == [
        "hierarchy: 10 targets, a head and 2 tails",
        "├── shortlist: 2 targets (0, 1)",
        "├── cluster 2, tail 0: 3 targets (2, 3, 4)",
        "└── cluster 3, tail 1: 5 targets (5, 6, 7, …)",
    ]


def test_a_binary_tree_has_its_branches(drawing):
    path = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 0], [0, 0, 0]])
    sign = np.array([[-1, -1, -1], [-1, -1, 1], [-1, 1, 0], [1, 0, 0]])
    lines = drawing("huffman", list("abcd"), syn1=normal(3, 4), path=path, sign=sign)
    assert lines == [
        "hierarchy: 4 targets, a binary tree, paths of 2.2 nodes on average, at most 3",
        "├── - 3 targets (a, b, c)",
        "│   ├── - 2 targets (a, b)",
        "│   └── + c",
        "└── + d",
    ]


def test_a_layer_without_a_softmax_has_no_drawing(drawing, tmp_path):
    assert drawing("sparse-block-dot", W=normal(2, 3, 4, 5), b=normal(3, 5)) == []
    opened = bundle.open_bundle(tmp_path / "repository" / "drawn" / "1")
    assert draw_hierarchy(opened) is None
