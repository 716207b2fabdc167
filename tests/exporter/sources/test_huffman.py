"""Tests of binary trees as plain arrays."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax import bundle
from hsoftmax.exporter import SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.models import WeightsError, huffman_softmax
from hsoftmax.runtime.sessions import open_session
from tests.models.strategies import hidden_for
from tests.models.trees import random_huffman, random_paths


def tree_arrays(num_targets: int = 9) -> dict:
    path, sign = random_paths(num_targets, np.random.default_rng(3))
    syn1 = np.random.default_rng(4).normal(size=(num_targets, 5)).astype(np.float32)
    return {"syn1": syn1, "path": path, "sign": sign}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed, save_file])
def test_npz_and_safetensors_give_the_same_model(tmp_path, write):
    path, arrays = tmp_path / "tree.npz", tree_arrays()
    save_file(arrays, path) if write is save_file else write(path, **arrays)
    loaded = load(path, "huffman", SourceOptions())
    np.testing.assert_array_equal(loaded.model.path, arrays["path"])
    np.testing.assert_array_equal(loaded.model.sign, arrays["sign"])
    np.testing.assert_array_equal(loaded.model.syn1, arrays["syn1"])
    assert loaded.labels is None
    assert detect_source(path).description == "arrays syn1, path, sign of a binary tree"


@pytest.mark.parametrize("biases", [{}, {"bias": np.linspace(-2, 2, 300)}], ids=["", "biases"])
@pytest.mark.parametrize("compat", ["exact", "fasttext"])
@pytest.mark.parametrize("num_targets", [1, 2, 300])
def test_a_tree_is_exported_and_verified_and_equals_the_reference(
    tmp_path, compat, num_targets, biases
):
    path = tmp_path / "tree.npz"
    biases = {name: bias[:num_targets] for name, bias in biases.items()}
    np.savez(path, **tree_arrays(num_targets), **biases)
    to = tmp_path / "repository" / "tree"
    exported = export_file(path, to, source="huffman", options=SourceOptions(compat=compat))
    assert exported.manifest.family == "HuffmanSoftmax"
    assert (exported.manifest.num_targets, exported.manifest.num_clusters) == (num_targets, None)
    assert exported.manifest.attributes["compat"] == compat
    assert set(exported.manifest.tasks) == {"target_log_prob", "log_probs", "top_k", "sample"}
    assert {check.task for check in exported.manifest.verification} == set(exported.manifest.tasks)
    model = load(path, "huffman", SourceOptions(compat=compat)).model
    hidden = hidden_for(model)
    actual = open_session(exported.path / "log_probs.onnx").run(None, {"hidden": hidden})[0]
    np.testing.assert_allclose(actual, huffman_softmax.log_probs(model, hidden), atol=1e-5)
    bundle.check_hashes(exported)


def test_weights_are_stored_once_and_tables_are_small(tmp_path):
    model = random_huffman(2000, 300)
    np.savez(tmp_path / "tree.npz", syn1=model.syn1, path=model.path, sign=model.sign)
    exported = export_file(
        tmp_path / "tree.npz", tmp_path / "repository" / "tree", source="huffman"
    )
    sizes = {name: file.size for name, file in exported.manifest.files.items()}
    assert model.syn1.nbytes < sizes.pop(bundle.WEIGHTS) < 1.3 * model.syn1.nbytes
    assert max(sizes.values()) < 64_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sign": None}, r"tree.npz: expected syn1, path, sign, got no sign"),
        ({"path": np.zeros((9, 1), int)}, r"sign: expected \[9, 1\], got \[9, "),
        ({"sign": np.zeros((9, 20), int)}, r"sign: expected \[9, \d\], got \[9, 20\]"),
        ({"syn1": np.zeros((1, 5))}, r"path: expected nodes 0 to 0, got"),
        ({"bias": np.zeros(8)}, r"bias: expected \[9\], got \[8\]"),
        ({"bias": np.full(9, np.nan)}, r"bias: expected finite float32 values, got nan at \[0\]"),
        ({"syn1": np.full((9, 5), np.inf)}, r"syn1: expected finite float32 values, got inf"),
        ({"sign": 1.0 * tree_arrays()["sign"]}, r"sign: expected integers, got dtype float64"),
        ({"sign": abs(tree_arrays()["sign"])}, r"expected one binary tree with a leaf for each"),
    ],
)
def test_arrays_that_are_no_tree_are_refused(tmp_path, changes, message):
    path = tmp_path / "tree.npz"
    np.savez(path, **{k: v for k, v in (tree_arrays() | changes).items() if v is not None})
    with pytest.raises((SourceError, WeightsError), match=message):
        load(path, "huffman", SourceOptions())


def test_a_wrong_number_of_targets_is_refused(tmp_path):
    np.savez(tmp_path / "tree.npz", **tree_arrays())
    with pytest.raises(SourceError, match=r"num_targets: expected 9, the rows of path, got 4"):
        load(tmp_path / "tree.npz", "huffman", SourceOptions(num_targets=4))


@pytest.mark.parametrize("keep", [0, 3, 100, 400, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "tree.npz"
    np.savez(path, **tree_arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"tree.npz: expected"):
        load(path, "huffman", SourceOptions())
