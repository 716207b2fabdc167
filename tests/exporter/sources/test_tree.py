"""Trees of classes, as people have them: a taxonomy of unequal depth, exported and asked."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.exporter import ExportError, SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.models import WeightsError
from hsoftmax.runtime.sessions import open_session
from tests.models.test_taxonomy import node_log_probs

H = 8
#            0         1         2      3      4      5        6       7        8
NODES = ("animal", "plant", "dog", "cat", "bird", "poodle", "terrier", "oak", "hound")
PARENT = np.array([-1, -1, 0, 0, 0, 2, 2, 1, 2])
LEAVES = [3, 4, 5, 6, 7, 8]
HIDDEN = np.random.default_rng(1).normal(size=(3, H)).astype(np.float32)


def arrays(parent=PARENT, seed=0) -> dict:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(len(parent), H)).astype(np.float32)
    return {"weight": weight, "bias": rng.normal(size=len(parent)).astype(np.float32),
            "parent": parent}  # fmt: skip


def write(tmp_path, **changes):
    content = {k: v for k, v in (arrays() | changes).items() if v is not None}
    np.savez(tmp_path / "tree.npz", **content)
    return tmp_path / "tree.npz"


def expected(of: dict) -> np.ndarray:
    full = node_log_probs(of["parent"].tolist(), of["weight"], of["bias"], HIDDEN)
    inner = set(of["parent"].tolist())
    return full[:, [node for node in range(len(of["parent"])) if node not in inner]]


def answers(exported) -> np.ndarray:
    return open_session(exported.path / "log_probs.onnx").run(None, {"hidden": HIDDEN})[0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_taxonomy_is_exported_with_the_labels_of_its_nodes(tmp_path, repository, precision):
    (tmp_path / "names.txt").write_text("\n".join(NODES))
    path, labels = write(tmp_path), tmp_path / "names.txt"
    assert detect_source(path).source == "tree"
    command = ["export", str(path), "--labels", str(labels), "--precision", precision]
    assert run([*command, "--to", str(repository / "words")]) == 0
    exported = bundle.open_bundle(repository / "words" / "1")
    assert bundle.read_labels(exported) == tuple(NODES[node] for node in LEAVES)
    atol = 1e-5 if precision == "fp32" else 0.2
    np.testing.assert_allclose(answers(exported), expected(arrays()), atol=atol)


def test_labels_may_be_those_of_the_leaves_alone(tmp_path, repository):
    leaves = [NODES[node] for node in LEAVES]
    (tmp_path / "leaves.json").write_text(json.dumps(leaves))
    labels = tmp_path / "leaves.json"
    exported = export_file(write(tmp_path), repository / "w", source="tree", labels=labels)
    assert bundle.read_labels(exported) == tuple(leaves)
    (tmp_path / "leaves.json").write_text(json.dumps(leaves[:-1]))
    for wrong in (leaves[:-1], [*leaves, "more"], [*NODES, "more"]):
        (tmp_path / "leaves.json").write_text(json.dumps(wrong))
        counts = "expected 9 for all nodes of the tree, in their order, or 6 for its leaves alone"
        with pytest.raises(ExportError, match=f"labels: {counts}, got {len(wrong)}"):
            export_file(write(tmp_path), repository / "x", source="tree", labels=labels)


def random_taxonomy(nodes: int, depth: int, seed: int) -> np.ndarray:
    """Return parents of a tree that is deep in places, as those of nature and of words are."""
    rng = np.random.default_rng(seed)
    parent, depths = [-1, -1, -1], [0, 0, 0]
    while len(parent) < nodes:
        above = int(len(parent) * rng.beta(2, 1))
        if depths[above] < depth:
            parent.append(above)
            depths.append(depths[above] + 1)
    order = rng.permutation(nodes)
    shuffled = np.empty(nodes, dtype=np.int64)
    shuffled[order] = np.where(np.array(parent) < 0, -1, order[np.maximum(parent, 0)])
    return shuffled


def test_every_task_of_a_deep_taxonomy_is_verified_and_right(tmp_path, repository):
    content = arrays(random_taxonomy(400, 12, seed=1))
    save_file(content, tmp_path / "tree.safetensors")
    exported = export_file(tmp_path / "tree.safetensors", repository / "deep", source="auto")
    assert exported.manifest.attributes["levels"] > 6
    assert all(check.passed for check in exported.manifest.verification)
    full = expected(content)
    np.testing.assert_allclose(answers(exported), full, atol=1e-5)
    top_k = open_session(exported.path / "top_k.onnx")
    feeds = {"hidden": HIDDEN, "k": np.array([5]), "max_blocks": np.array([0])}
    log_prob, target, _, exact = top_k.run(None, feeds)
    np.testing.assert_allclose(log_prob, -np.sort(-full)[:, :5], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(full, target, 1), log_prob, atol=1e-5)
    assert exact.all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"parent": np.array([-1, -1, 5, 0, 0, 2, 2, 1, 2])},
            r"got a cycle of nodes 2, 5: set the parent of",
        ),
        ({"parent": np.array([-1, -1, 0, 0, 0, 2, 2, 1, 8])}, r"node 8 as its own parent"),
        ({"parent": np.array([-1, -1, 0, 0, 0, 2, 2, 1, 9])}, r"got 9 for node 8"),
        ({"parent": PARENT[:8]}, r"parent: expected \[9\], got \[8\]"),
        ({"bias": np.zeros(8)}, r"bias: expected \[9\], got \[8\]"),
        (
            {"weight": np.zeros((H, 9))},
            rf"weight: expected \[nodes, H\], 9 nodes as in parent, got \[{H}, 9\]: transpose it",
        ),
        (
            {"parent": None, "parents": PARENT},
            r"got no parent: say --names parent=parents if that is what they are",
        ),
        ({"weight": np.zeros(9)}, r"weight: expected \[nodes, H\], got \[9\]"),
        ({"weight": np.full((9, H), np.nan)}, r"weight: expected finite float32 values"),
        ({"weight": np.zeros((9, 0))}, r"hidden_size: expected at least 1, got 0"),
        ({"parent": PARENT.astype(float)}, r"parent: expected integers, got dtype float64"),
        ({"bias": None}, r"expected weight, bias, parent, got no bias"),
        ({"scale": np.ones(1)}, r"softmax has, got scale with them"),
    ],
)
def test_a_tree_that_does_not_fit_is_one_line(tmp_path, changes, message):
    with pytest.raises((SourceError, WeightsError), match=message) as raised:
        load(write(tmp_path, **changes), "tree", SourceOptions())
    assert "\n" not in str(raised.value)


def test_another_number_of_targets_is_refused(tmp_path):
    with pytest.raises(SourceError, match="num_targets: expected 6, the leaves, got 9"):
        load(write(tmp_path), "tree", SourceOptions(num_targets=9))


def test_a_tree_that_needs_many_more_rows_than_it_has_is_refused(tmp_path):
    """Thirty thousand leaves beside a comb of 60 levels would take two million rows."""
    parent = np.array([-1, *(2 * (node // 2) for node in range(120)), *[0] * 30_000])
    zeros = np.zeros((len(parent), 64), np.float32)
    with (tmp_path / "tree.npz").open("wb") as file:
        np.savez_compressed(file, weight=zeros, bias=zeros[:, 0], parent=parent)
    with pytest.raises(SourceError, match=r"weight: expected at most \d+ bytes of numbers in a f"):
        load(tmp_path / "tree.npz", "tree", SourceOptions())
