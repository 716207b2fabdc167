"""A file of a bundle may be a link, as in model hubs and mounted volumes; the hashes decide."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle, exporter, models
from hsoftmax.exporter.graphs.cuda import cuda_graphs
from hsoftmax.runtime.sessions import open_single_thread_session
from tests.bundle.test_schemas import lowerings, write
from tests.data import SCHEMA_1
from tests.exporter.conftest import theano_arrays

STORED = SCHEMA_1 / "repository" / "hierarchical" / "1"
MODEL = models.from_theano(**theano_arrays(), num_targets=18)


def copied(to: Path, schema: int) -> Path:
    """A bundle of that schema, as files."""
    shutil.copytree(STORED, to)
    if schema == 2:
        for name, graph in cuda_graphs(MODEL).files.items():
            (to / name).write_bytes(graph.SerializeToString())
        write(to, lowerings)
    return to


def as_hub(files: Path, to: Path) -> None:
    """Names are links to content in a folder beside, where files are named by their hash."""
    blobs = to.parent / "blobs"
    blobs.mkdir()
    to.mkdir()
    for file in files.iterdir():
        hashed = blobs / bundle.sha256(file)
        shutil.copy(file, hashed)
        (to / file.name).symlink_to(os.path.relpath(hashed, to))


def as_config_map(files: Path, to: Path) -> None:
    """Names are links through a link that is replaced when the volume changes."""
    to.mkdir()
    shutil.copytree(files, to / "..2026_01_01")
    (to / "..data").symlink_to("..2026_01_01")
    for file in files.iterdir():
        (to / file.name).symlink_to(f"..data/{file.name}")


def as_cache(files: Path, to: Path) -> None:
    """Names are links to content in a folder of its own for each file, named by its hash."""
    to.mkdir()
    for file in files.iterdir():
        digest = bundle.sha256(file)
        cached = to.parent / "cache" / digest[:2] / digest[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, cached)
        (to / file.name).symlink_to(cached)


@pytest.fixture(params=[1, 2])
def files(request, tmp_path) -> Path:
    return copied(tmp_path / "files", request.param)


@pytest.fixture
def linked(files, tmp_path) -> Path:
    as_hub(files, tmp_path / "linked")
    return tmp_path / "linked"


@pytest.mark.parametrize("link", [as_hub, as_config_map, as_cache])
def test_a_bundle_of_links_is_opened_checked_and_answers(files, tmp_path, link):
    link(files, tmp_path / "linked")
    opened = bundle.open_bundle(tmp_path / "linked")
    bundle.check_hashes(opened)
    assert bundle.read_labels(opened) == bundle.read_labels(bundle.open_bundle(files))
    for name, array in bundle.load_tensors(bundle.open_bundle(files)).items():
        np.testing.assert_array_equal(bundle.load_tensors(opened)[name], array)
    assert exporter.failures(exporter.verify(opened.path, opened.manifest)) == []


@pytest.mark.parametrize("link", [as_hub, as_config_map, as_cache])
def test_a_bundle_of_links_is_scored_and_its_tasks_run(files, tmp_path, link):
    link(files, tmp_path / "linked")
    opened, original = (bundle.open_bundle(tmp_path / name) for name in ("linked", "files"))
    hidden = np.ones((2, original.manifest.hidden_size), np.float32)
    answers = [
        open_single_thread_session(one, "log_probs", native=native).run({"hidden": hidden})[0]
        for one in (original, opened)
        for native in (False, True)
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_a_link_to_other_content_is_refused_by_its_hash(linked, tmp_path):
    content = bytearray((linked / bundle.WEIGHTS).read_bytes())
    content[0] ^= 1
    relink(linked / bundle.WEIGHTS, tmp_path / "other", bytes(content))
    with pytest.raises(bundle.BundleError, match=r"weights.bin: expected SHA-256 \w+, got \w+"):
        bundle.check_hashes(bundle.open_bundle(linked))


def test_a_link_to_content_of_another_size_is_refused_at_once(linked, tmp_path):
    relink(linked / "labels.txt", tmp_path / "other", b"more")
    with pytest.raises(bundle.BundleError, match=r"labels.txt: expected 68 bytes, got 4"):
        bundle.open_bundle(linked)


@pytest.mark.parametrize("target", ["gone", "/dev/zero", ".", "labels.txt"])
def test_a_link_to_no_regular_file_is_refused(linked, target):
    """The last one is a link to itself."""
    (linked / "labels.txt").unlink()
    (linked / "labels.txt").symlink_to(target)
    with pytest.raises(bundle.BundleError, match=r"labels.txt: expected a regular file, got none"):
        bundle.open_bundle(linked)


def test_a_linked_manifest_is_checked_as_any_other(linked, tmp_path):
    content = json.loads((linked / bundle.MANIFEST).read_text()) | {"num_targets": 12}
    relink(linked / bundle.MANIFEST, tmp_path / "other", json.dumps(content).encode())
    with pytest.raises(bundle.BundleError, match=r"digest: expected \w{64}, got \w{64}"):
        bundle.open_bundle(linked)


def test_a_manifest_without_end_is_refused(linked):
    (linked / bundle.MANIFEST).unlink()
    (linked / bundle.MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(bundle.BundleError, match=r"bundle.json: expected a regular file, got none"):
        bundle.open_bundle(linked)


@pytest.mark.parametrize("dangling", [True, False])
def test_no_export_is_written_through_a_link(tmp_path, dangling):
    """A link in the place of a version is a version, and what it leads to stays as it is."""
    elsewhere, version = tmp_path / "elsewhere", tmp_path / "repository" / "words" / "2"
    version.parent.mkdir(parents=True)
    if not dangling:
        elsewhere.mkdir()
    version.symlink_to(elsewhere)
    with pytest.raises(exporter.DestinationError, match="expected a new version"):
        exporter.export_model(MODEL, exporter.parse_destination(version))
    assert version.is_symlink()
    assert elsewhere.exists() != dangling
    assert dangling or list(elsewhere.iterdir()) == []


def test_a_link_that_comes_in_the_place_of_a_version_meanwhile_is_not_followed(tmp_path):
    elsewhere, version = tmp_path / "elsewhere", tmp_path / "repository" / "words" / "1"
    to = exporter.parse_destination(version)
    elsewhere.mkdir()
    version.parent.mkdir(parents=True)
    version.symlink_to(elsewhere)
    with pytest.raises(exporter.DestinationError, match="got 1, which exists"):
        exporter.export_model(MODEL, to)
    assert list(elsewhere.iterdir()) == []
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def relink(path: Path, target: Path, content: bytes) -> None:
    target.write_bytes(content)
    path.unlink()
    path.symlink_to(target)
