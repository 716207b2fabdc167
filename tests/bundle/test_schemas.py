"""Bundles of every schema are read: stored ones of schema 1, and those with parts of schema 2."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsoftmax import bundle, exporter, models
from hsoftmax.models.storage.tensors import model_tensors
from hsoftmax.runtime.sessions import open_session
from tests.data import SCHEMA_1, read_json

STORED = read_json("expected.json")
SOFTMAXES = sorted(STORED.keys() - {"block_dot"})
TOLERANCE = {"hierarchical_int8": 0.1}  # graphs round hidden to whole steps at int8
IDS = {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]}
STATES = {"name": "hidden", "dtype": "float32", "shape": ["batch", "length", 4]}

Json = dict[str, Any]


def opened(name: str) -> bundle.Bundle:
    return bundle.open_bundle(SCHEMA_1 / "repository" / name / "1")


def model_of(stored: bundle.Bundle) -> models.Model:
    manifest = stored.manifest
    return models.from_tensors(manifest.family, bundle.load_tensors(stored), manifest.attributes)


# --- stored bundles of schema 1 -----------------------------------------------------------------


@pytest.mark.parametrize("name", STORED)
def test_a_stored_bundle_is_whole(name):
    stored = opened(name)
    bundle.check_hashes(stored)
    assert (stored.manifest.schema_version, stored.manifest.digest) == (1, STORED[name]["digest"])


@pytest.mark.parametrize("name", STORED)
def test_a_stored_manifest_would_be_written_the_same_today(name):
    """So that what is exported again has the digest that it had."""
    manifest = opened(name).manifest
    text = (SCHEMA_1 / "repository" / name / "1" / bundle.MANIFEST).read_text()
    assert manifest.sealed() == manifest
    assert manifest.to_json() == text


@pytest.mark.parametrize("name", SOFTMAXES)
def test_a_stored_softmax_answers_as_it_did(name):
    stored, wanted = opened(name), np.array(STORED[name]["log_probs"])
    hidden = np.array(STORED[name]["hidden"], dtype=np.float32)
    model = model_of(stored)
    np.testing.assert_allclose(models.reference(model).log_probs(model, hidden), wanted, atol=1e-9)
    session = open_session(stored.file(stored.manifest.tasks["log_probs"].file))
    [got] = session.run(None, {"hidden": hidden})
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE.get(name, 1e-5))


def test_a_stored_layer_answers_as_it_did():
    stored, told = opened("block_dot"), STORED["block_dot"]
    h = np.array(told["h"], dtype=np.float32)
    taken = {name: np.array(told[name]) for name in ("input_index", "output_index")}
    output = models.sparse_block_dot.block_dot(model_of(stored), h, *taken.values())
    np.testing.assert_allclose(output, told["output"], atol=1e-9)
    [got] = open_session(stored.file("block_dot.onnx")).run(None, {"h": h, **taken})
    np.testing.assert_allclose(got, told["output"], atol=1e-5)


@pytest.mark.parametrize("name", STORED)
def test_every_task_of_a_stored_bundle_passes_its_checks(name):
    stored = opened(name)
    checks = exporter.verify(stored.path, stored.manifest)
    assert {check.task for check in checks} == set(stored.manifest.tasks)
    assert exporter.failures(checks) == []


# --- schema 2 -----------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path) -> Path:
    """A copy of a stored bundle with more files, which nothing names yet."""
    path = tmp_path / "words" / "1"
    shutil.copytree(SCHEMA_1 / "repository" / "hierarchical" / "1", path)
    for name in ("top_k.cuda.onnx", "encoder.onnx", "encoder.bin", "featurizer.json",
                 "tokenizer.json"):  # fmt: skip
        (path / name).write_text(f"content of {name}")
    return path


def lowerings(content: Json) -> None:
    content["tasks"]["top_k"]["lowerings"] = {"cuda": "top_k.cuda.onnx"}


def other_lowerings(content: Json) -> None:
    """A graph for a device that this version does not know."""
    content["tasks"]["top_k"]["lowerings"] = {"tpu": "top_k.cuda.onnx"}


def encoder(content: Json) -> None:
    content["encoder"] = {"file": "encoder.onnx", "weights": "encoder.bin", "inputs": [dict(IDS)],
                          "outputs": [STATES], "position": "last"}  # fmt: skip


def padded_encoder(content: Json) -> None:
    """An encoder with the parts that one may lack."""
    encoder(content)
    mask, lengths = IDS | {"name": "mask"}, IDS | {"name": "lengths", "shape": ["batch"]}
    content["encoder"]["inputs"] += [mask, lengths]
    content["encoder"] |= {"mask": "mask", "lengths": "lengths", "num_ids": {"ids": 50},
                           "multiply_adds": 7}  # fmt: skip


def featurizer(content: Json) -> None:
    content["featurizer"] = "featurizer.json"


def tokenizer(content: Json) -> None:
    content["tokenizer"] = "tokenizer.json"


def int8_tree(content: Json) -> None:
    content |= {"family": "HuffmanSoftmax", "precision": "int8"}


def bf16(content: Json) -> None:
    content["precision"] = "bf16"


def bfloat16(content: Json) -> None:
    content["tensors"][0]["dtype"] = "bfloat16"


PARTS = [lowerings, encoder, padded_encoder, featurizer, tokenizer, int8_tree, bf16, bfloat16]


def content_of(path: Path) -> Json:
    """The manifest's content without digest and version, its list of files made anew."""
    content = json.loads((path / bundle.MANIFEST).read_text())
    content["files"] = {
        file.name: {"size": file.stat().st_size, "sha256": bundle.sha256(file)}
        for file in sorted(path.iterdir())
        if file.name != bundle.MANIFEST
    }
    del content["digest"], content["schema_version"]
    return content


def write_as_it_is(path: Path, content: Json) -> None:
    """The content with its digest, valid or not."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    (path / bundle.MANIFEST).write_text(json.dumps(content | {"digest": digest}))


def write(path: Path, *parts) -> bundle.Manifest:
    """The bundle's manifest with these parts, as an exporter writes it."""
    content = content_of(path)
    for part in parts:
        part(content)
    manifest = bundle.Manifest(**content).sealed()
    (path / bundle.MANIFEST).write_text(manifest.to_json())
    return manifest


def test_without_its_parts_a_manifest_has_schema_1(made):
    assert write(made).schema_version == 1
    written = json.loads((made / bundle.MANIFEST).read_text())
    assert written.keys().isdisjoint({"encoder", "featurizer", "tokenizer"})
    assert not any("lowerings" in graph for graph in written["tasks"].values())


@pytest.mark.parametrize("part", PARTS)
def test_with_one_of_its_parts_a_manifest_has_schema_2(made, part):
    written = write(made, part)
    assert written.schema_version == 2
    read = bundle.open_bundle(made)
    bundle.check_hashes(read)
    assert read.manifest == written


def test_all_parts_together_are_read_as_written(made):
    write(made, *PARTS)
    read = bundle.open_bundle(made).manifest
    assert read.tasks["top_k"].lowerings == {"cuda": "top_k.cuda.onnx"}
    assert read.encoder is not None
    assert (read.encoder.file, read.encoder.weights) == ("encoder.onnx", "encoder.bin")
    assert (read.encoder.position, read.encoder.inputs[0].name) == ("last", "ids")
    assert (read.encoder.mask, read.encoder.lengths) == ("mask", "lengths")
    assert (read.encoder.num_ids, read.encoder.multiply_adds) == ({"ids": 50}, 7)
    assert [port.name for port in read.encoder.row_inputs] == ["ids"]
    assert (read.featurizer, read.tokenizer) == ("featurizer.json", "tokenizer.json")
    assert read.precision == "bf16"


def test_parts_that_an_encoder_lacks_are_not_written(made):
    write(made, encoder)
    written = json.loads((made / bundle.MANIFEST).read_text())["encoder"]
    assert written.keys() == {"file", "weights", "inputs", "outputs", "position"}


def test_a_bundle_of_schema_2_answers_through_its_portable_graphs(made):
    write(made, other_lowerings, encoder, featurizer, tokenizer)
    read = bundle.open_bundle(made)
    assert exporter.failures(exporter.verify(read.path, read.manifest)) == []


@pytest.mark.parametrize("part", PARTS)
def test_schema_1_with_a_part_of_schema_2_is_refused(made, part):
    content = content_of(made) | {"schema_version": 1}
    part(content)
    write_as_it_is(made, content)
    with pytest.raises(
        bundle.BundleError, match=r"schema_version: expected 2, which has .*, got 1"
    ):
        bundle.open_bundle(made)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, r"schema_version: expected 1 or 2, got 3: a newer hsoftmax wrote this bundle$"),
        (0, r"schema_version: expected 1 or 2, got 0$"),
        ("2", r"schema_version: expected 1 or 2, got 2$"),
        (None, r"schema_version: expected 1 or 2, got None$"),
        ([2], r"schema_version: expected 1 or 2, got \[2\]$"),
    ],
)
def test_another_schema_is_refused_in_one_line(made, version, message):
    """Whatever else it has that schema 2 has not."""
    content = content_of(made) | {"schema_version": version, "surprise": {"more": 1}}
    content["tensors"] = "elsewhere"
    write_as_it_is(made, content)
    with pytest.raises(bundle.BundleError, match=message) as refused:
        bundle.open_bundle(made)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("part", "file", "message"),
    [
        (lowerings, "top_k.cuda.onnx", "task top_k on cuda: top_k.cuda.onnx is not in the list"),
        (encoder, "encoder.onnx", "encoder: encoder.onnx is not in the list of files"),
        (encoder, "encoder.bin", "encoder: encoder.bin is not in the list of files"),
        (featurizer, "featurizer.json", "featurizer: featurizer.json is not in the list of files"),
        (tokenizer, "tokenizer.json", "tokenizer: tokenizer.json is not in the list of files"),
    ],
)
def test_a_part_whose_file_has_no_hash_is_refused(made, part, file, message):
    content = content_of(made) | {"schema_version": 2}
    part(content)
    del content["files"][file]
    write_as_it_is(made, content)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.open_bundle(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["tasks"]["top_k"]["lowerings"].update({"": "top_k.cuda.onnx"}), "pattern"),
        (lambda c: c["tasks"]["top_k"]["lowerings"].update(cuda="../top_k.onnx"), "inside the"),
        (lambda c: c["encoder"].update(weights="/etc/passwd"), "inside the bundle"),
        (lambda c: c["encoder"].update(position="middle"), "encoder.position"),
        (lambda c: c["encoder"].update(more=1), "encoder.more: Extra inputs"),
        (lambda c: c["encoder"].update(mask="pad"), r"expected an input pad, got \['ids'\]"),
        (lambda c: c["encoder"].update(lengths="n"), r"expected an input n, got \['ids'\]"),
        (lambda c: c["encoder"].update(num_ids={"n": 1}), r"expected an input n, got \['ids'\]"),
        (lambda c: c["encoder"].update(num_ids={"ids": 0}), "greater than or equal to 1"),
        (lambda c: c["encoder"].update(mask="ids"), "expected an input of rows, got none"),
        (lambda c: c["encoder"].update(position=None), "expected null for 2 axes and one for 3"),
        (lambda c: c["encoder"].update(outputs=[]), "encoder.outputs: Tuple should have at least"),
        (lambda c: c["encoder"]["inputs"][0].update(shape=[1, 2]), "a free first dimension"),
        (lambda c: c.update(featurizer="a/b"), "inside the bundle"),
        (lambda c: c.update(tokenizer=".."), "inside the bundle"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(made, change, message):
    content = content_of(made) | {"schema_version": 2}
    lowerings(content)
    encoder(content)
    change(content)
    write_as_it_is(made, content)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.open_bundle(made)


def test_bfloat16_is_read_as_its_bits_and_stands_for_its_floats(made):
    floats = np.array([[1.0, -2.5, 0.15625], [3e38, -0.0, 2.0**-126]], dtype=np.float32)
    bits = (floats.view(np.uint32) >> 16).astype("<u2")
    exact = (bits.astype(np.uint32) << 16).view(np.float32)
    (made / bundle.WEIGHTS).write_bytes(bits.tobytes())
    tensor = {"name": "level0.weight", "dtype": "bfloat16", "shape": [2, 3], "offset": 0}
    write(made, lambda content: content.update(tensors=[tensor], tasks={}, precision="bf16"))
    tensors = bundle.load_tensors(bundle.open_bundle(made))
    assert tensors["level0.weight"].dtype == np.uint16
    offsets = np.array([0, 2])
    read = model_tensors({**tensors, "level0.offsets": offsets})["level0.weight"]
    assert (read.dtype, read.tolist()) == (np.float32, exact.tolist())
