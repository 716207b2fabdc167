"""Sharded weights: an index, given by its path or by its folder, stands for the files it names."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax.exporter import SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.models import adaptive_softmax
from hsoftmax.runtime.sessions import open_session
from tests.exporter.conftest import theano_arrays

from .saved_tensors import MODULES

TENSORS = dict(MODULES["pytorch, all biases"].tensors)
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
HIDDEN = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


def write_index(folder: Path, weight_map: object, name: str = INDEX) -> Path:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder / name


def write_shards(folder: Path, tensors=TENSORS) -> Path:
    """Write the tensors alternately into two files, and their index."""
    folder.mkdir(exist_ok=True)
    for i, shard in enumerate(SHARDS):
        save_file(dict(list(tensors.items())[i::2]), folder / shard)
    return write_index(folder, {name: SHARDS[i % 2] for i, name in enumerate(tensors)})


def whole(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "whole.safetensors")
    return tmp_path / "whole.safetensors"


@pytest.mark.parametrize("is_folder", [True, False])
def test_shards_answer_as_the_whole_file_does(tmp_path, repository, is_folder):
    index = write_shards(tmp_path / "model")
    given = index.parent if is_folder else index
    expected = load(whole(tmp_path), "pytorch", SourceOptions()).model
    assert detect_source(given).source == "pytorch"
    exported = export_file(given, repository / "words", source="auto")
    actual = open_session(exported.path / "log_probs.onnx").run(None, {"hidden": HIDDEN})[0]
    np.testing.assert_allclose(actual, adaptive_softmax.log_probs(expected, HIDDEN), atol=1e-5)
    assert set(exported.manifest.source.files) == {INDEX, *SHARDS}


def test_shards_of_plain_arrays_are_read_too(tmp_path):
    index = write_shards(tmp_path / "model", theano_arrays())
    assert load(index, "auto", SourceOptions()).model.num_targets == 20


def test_shards_may_be_links_as_in_the_cache_of_a_hub(tmp_path):
    index = write_shards(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in index.parent.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    assert load(tmp_path / "snapshot", "pytorch", SourceOptions()).model.num_targets == 19


def test_a_tensor_of_a_shard_that_the_index_does_not_name_is_not_ignored(tmp_path):
    index = write_shards(tmp_path / "model")
    weight_map = json.loads(index.read_text())["weight_map"]
    del weight_map["lm.softmax.tail.0.1.bias"]
    write_index(index.parent, weight_map)
    expected = load(whole(tmp_path), "pytorch", SourceOptions()).model
    actual = load(index, "pytorch", SourceOptions()).model
    np.testing.assert_array_equal(actual.tails[0].bias, expected.tails[0].bias)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../other.safetensors"}, r"files in its own folder, got '../other.safetensors'"),
        ({"a": "/etc/passwd"}, r"files in its own folder, got '/etc/passwd'"),
        ({"a": ".."}, r"expected names of files in its own folder, got '..'"),
        ({"a": ""}, r"expected names of files in its own folder, got ''"),
        ({"a": "x" * 256}, r"expected names of files in its own folder, got 'xxx"),
        ({"a": "a\0b"}, r"expected names of files in its own folder, got 'a"),
        ({"a": "\ud800"}, r"expected names of files in its own folder, got '"),
        ({"a": 3}, r"expected names of files in its own folder, got none"),
        ({}, r"expected JSON with a weight_map from tensors to files, got none"),
        ([], r"expected JSON with a weight_map from tensors to files, got none"),
        ({"a": "gone.safetensors"}, r"gone.safetensors: expected a file, got No such file"),
        ({str(i): f"{i}.bin" for i in range(10_001)}, r"at most 10000 files, got 10001"),
        ({"a": INDEX}, r"expected a PyTorch checkpoint, .* got an index of"),
    ],
)
def test_an_index_that_names_no_files_beside_it_is_one_line(tmp_path, weight_map, message):
    index = write_index(tmp_path, weight_map)
    with pytest.raises(SourceError, match=message) as raised:
        load(index, "pytorch", SourceOptions())
    assert "\n" not in str(raised.value)


def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path):
    index = write_shards(tmp_path / "model")
    weight_map = json.loads(index.read_text())["weight_map"]
    write_index(index.parent, weight_map | {"lm.softmax.head.scale": SHARDS[0]})
    with pytest.raises(
        SourceError, match=rf"expected lm.softmax.head.scale in {SHARDS[0]}, got no"
    ):
        load(index, "pytorch", SourceOptions())
    write_shards(tmp_path / "model")
    save_file(TENSORS, index.parent / SHARDS[1])
    with pytest.raises(SourceError, match=r"expected each tensor in one file, got .* too"):
        load(index, "pytorch", SourceOptions())
    index.write_text(index.read_text()[:-9])
    with pytest.raises(SourceError, match=r"expected JSON with a weight_map"):
        load(index, "pytorch", SourceOptions())


def test_a_folder_with_weights_that_its_index_does_not_name_is_refused(tmp_path):
    index = write_shards(tmp_path / "model")
    save_file(TENSORS, index.parent / "consolidated.safetensors")
    message = rf"expected one weights file \*.safetensors, got {INDEX}, consolidated.safetensors: n"
    with pytest.raises(SourceError, match=message):
        load(index.parent, "pytorch", SourceOptions())
