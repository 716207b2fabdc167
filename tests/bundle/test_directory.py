"""A bundle whose bytes, paths or shapes do not fit is refused with one clear line."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.exporter import export_model, parse_destination
from hsoftmax.models import from_theano


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (4,), (4, 3, 5), (4, 5)]
    model = from_theano(*(rng.normal(size=shape) for shape in shapes), num_targets=18)
    labels = [f"label {i}" for i in range(18)]
    repository = tmp_path_factory.mktemp("exported") / "repository"
    export_model(model, parse_destination(repository / "words"), labels=labels)
    return repository


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> bundle.Bundle:
    """Return a copy of the exported bundle, which a test may change."""
    copy = shutil.copytree(exported_once, tmp_path / "repository")
    return bundle.open_bundle(copy / "words" / "1")


def rewrite(exported: bundle.Bundle, change) -> None:
    path = exported.path / bundle.MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_one_altered_byte_of_the_weights_is_noticed(exported):
    path = exported.path / bundle.WEIGHTS
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(bundle.BundleError, match=r"weights.bin: expected SHA-256 \w+, got \w+"):
        bundle.check_hashes(bundle.open_bundle(exported.path))


def test_a_short_file_is_noticed_at_once(exported):
    path = exported.path / bundle.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(bundle.BundleError, match=r"weights.bin: expected \d+ bytes, got \d+"):
        bundle.open_bundle(exported.path)


def test_a_missing_file_is_noticed(exported):
    (exported.path / "labels.txt").unlink()
    with pytest.raises(bundle.BundleError, match=r"labels.txt: expected a regular file, got none"):
        bundle.open_bundle(exported.path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "a\\b"])
def test_a_path_outside_the_bundle_is_refused(exported, name):
    rewrite(exported, lambda content: content["tasks"]["log_probs"].update(file=name))
    with pytest.raises(bundle.BundleError, match=r"tasks.log_probs.file: .*inside the bundle"):
        bundle.open_bundle(exported.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["files"].pop("log_probs.onnx"), r"log_probs.onnx is not in the list of files"),
        (lambda c: c["files"].pop("labels.txt"), r"labels.txt is not in the list of files"),
        (lambda c: c["tensors"][0].update(offset=4096 * 100), r"expected to end within"),
        (lambda c: c["tensors"][0].update(offset=1), r"tensors.0.offset: .*multiple of 4096"),
        (
            lambda c: c["tensors"][0].update(shape=[-1]),
            r"tensors.0.shape.0: .*greater than",
        ),
        (lambda c: c["tensors"][0].update(dtype="object"), r"tensors.0.dtype"),
        (lambda c: c.update(num_targets=17), r"digest: expected \w{64}, got \w{64}"),
        (lambda c: c.update(digest=""), r"digest: expected a SHA-256, got none"),
        (lambda c: c.update(schema_version=2), r"digest: expected \w{64}, got \w{64}"),
        (lambda c: c.update(surprise=1), r"surprise: Extra inputs"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(exported, change, message):
    rewrite(exported, change)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.open_bundle(exported.path)


def test_a_bundle_from_before_a_field_was_added_is_still_one(exported):
    def as_it_was(content):
        del content["accuracy"], content["digest"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["digest"] = hashlib.sha256(canonical.encode()).hexdigest()

    rewrite(exported, as_it_was)
    old = bundle.open_bundle(exported.path)
    assert (old.manifest.accuracy, old.manifest.files) == ((), exported.manifest.files)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_not_json_is_refused(exported, content):
    (exported.path / bundle.MANIFEST).write_bytes(content)
    with pytest.raises(bundle.BundleError, match=r"bundle.json"):
        bundle.open_bundle(exported.path)


def test_a_manifest_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / bundle.MANIFEST)
    with pytest.raises(bundle.BundleError, match=r"bundle.json: expected a regular file, got none"):
        bundle.open_bundle(tmp_path)


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(bundle.BundleError, match=r"expected a bundle, got no bundle.json"):
        bundle.open_bundle(tmp_path)
