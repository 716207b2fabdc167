"""Tests of block-sparse layers: reading, export, verification and results."""

import numpy as np
import pytest

from hsoftmax.exporter import SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.models import WeightsError, sparse_block_dot
from hsoftmax.runtime.sessions import open_session


def block_arrays(shape=(3, 4, 5, 2)) -> dict:
    rng = np.random.default_rng(0)
    bias = rng.normal(size=(shape[1], shape[3])).astype(np.float32)
    return {"W": rng.normal(size=shape).astype(np.float32), "b": bias}


@pytest.fixture
def weights(tmp_path):
    np.savez(tmp_path / "layer.npz", **block_arrays())
    return tmp_path / "layer.npz"


def test_a_layer_is_exported_and_verified_at_every_size_of_input(weights, tmp_path):
    exported = export_file(weights, tmp_path / "repository" / "layer", source="sparse-block-dot")
    manifest = exported.manifest
    assert manifest.family == "SparseBlockDot"
    assert (manifest.hidden_size, manifest.num_targets, manifest.num_clusters) == (None, None, None)
    assert list(manifest.tasks) == ["block_dot"]
    assert [c.case for c in manifest.verification] == ["ordinary", "large", "extreme"]
    assert manifest.attributes["input_blocks"] == 3
    assert manifest.files["block_dot.onnx"].size < 8_000


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 4, 5, 2), (2, 30, 7, 1), (8, 3, 16, 32)])
@pytest.mark.parametrize("windows", [(1, 1, 1), (4, 3, 2), (2, 9, 5), (0, 2, 2), (2, 0, 2)])
def test_the_graph_equals_the_reference(tmp_path, shape, windows):
    np.savez(tmp_path / "layer.npz", **block_arrays(shape))
    exported = export_file(
        tmp_path / "layer.npz", tmp_path / "repository" / "layer", source="sparse-block-dot"
    )
    model = load(tmp_path / "layer.npz", "sparse-block-dot", SourceOptions()).model
    rng = np.random.default_rng(1)
    batch, inputs, outputs = windows
    h = rng.normal(size=(batch, inputs, shape[2])).astype(np.float32)
    index = {
        "input_index": rng.integers(0, shape[0], (batch, inputs)),
        "output_index": rng.integers(0, shape[1], (batch, outputs)),
    }
    actual = open_session(exported.path / "block_dot.onnx").run(None, {"h": h, **index})[0]
    expected = sparse_block_dot.block_dot(model, h, **index)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_layer_is_detected_by_its_arrays(weights, tmp_path):
    assert detect_source(weights).description == "arrays W, b of a block-sparse layer"
    np.savez(tmp_path / "other.npz", W=np.zeros(1))
    with pytest.raises(SourceError, match="expected weights of one of"):
        detect_source(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": None}, r"layer.npz: expected W, b, got no b"),
        ({"b": np.zeros((4, 3))}, r"b: expected \[4, 2\], got \[4, 3\]"),
        ({"W": np.zeros((4, 3))}, r"W: expected \[iBlocks, oBlocks, iSize, oSize\], got \[4, 3\]"),
        ({"b": np.full((4, 2), np.nan)}, r"b: expected finite float32 values, got nan"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    arrays = {k: v for k, v in (block_arrays() | changes).items() if v is not None}
    np.savez(tmp_path / "layer.npz", **arrays)
    with pytest.raises((SourceError, WeightsError), match=message):
        load(tmp_path / "layer.npz", "sparse-block-dot", SourceOptions())
