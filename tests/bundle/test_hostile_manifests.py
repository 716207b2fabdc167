"""A manifest that is too large, too deep or claims impossible sizes is refused in one line."""

import hashlib
import json
import os

import pytest

from hsoftmax import bundle, exporter
from tests.scoring.conftest import make_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    to = tmp_path_factory.mktemp("repository") / "words"
    return exporter.export_model(make_model(), exporter.parse_destination(to))


def changed(made, change) -> None:
    """Writes the manifest with a change, and with the digest of the change."""
    content = json.loads(made.manifest.to_json())
    del content["digest"]
    change(content)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    made.file(bundle.MANIFEST).write_text(json.dumps(content))


def test_the_change_of_nothing_is_accepted(made):
    changed(made, lambda content: None)
    assert bundle.load_tensors(bundle.open_bundle(made.path))


@pytest.mark.parametrize(
    "shape", [[0, 2**70], [0, 2**63 - 1, 2**63 - 1], [1] * 70, [-1, -1], [0, 2**62, 4]]
)
def test_shapes_that_no_array_has_are_refused(made, shape):
    changed(made, lambda content: content["tensors"][0].update(shape=shape))
    with pytest.raises(bundle.BundleError, match=r"tensors?[ .]"):
        bundle.open_bundle(made.path)


@pytest.mark.parametrize(
    "content",
    [b"[" * 1_000_000, b'{"attributes":' + b"[" * 100_000, b'"caf\xe9"', b" " * (17 << 20)],
)
def test_content_that_is_no_manifest_is_one_line(made, content):
    made.file(bundle.MANIFEST).write_bytes(content)
    with pytest.raises(bundle.BundleError) as caught:
        bundle.open_bundle(made.path)
    assert "\n" not in str(caught.value)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(bundle.NotRegularFile, match="expected a regular file, got a pipe"):
        bundle.open_regular(tmp_path / "pipe")
    with pytest.raises(bundle.NotRegularFile, match="got a folder"):
        bundle.open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        bundle.open_regular(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with bundle.open_regular(tmp_path / "link") as file:
        assert file.read() == b"x"
