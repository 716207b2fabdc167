"""Tests that an export leaves a complete, verified bundle, or nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle, exporter
from hsoftmax.exporter import (
    DestinationError,
    SourceOptions,
    VerificationError,
    export_file,
    export_model,
    parse_destination,
)
from hsoftmax.models import UserError, from_tensors, from_theano, to_tensors

from .conftest import theano_arrays


def list_recursively(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))


def test_a_bundle_holds_the_model_and_all_parts_of_the_format(weights, repository):
    exported = export_file(weights, repository / "words", source="theano")
    manifest = bundle.open_bundle(repository / "words" / "1").manifest
    assert exported.path == repository / "words" / "1"
    assert (manifest.family, manifest.hidden_size, manifest.num_targets, manifest.num_clusters) == (
        "HierarchicalSoftmax",
        6,
        18,
        5,
    )
    assert {"target_log_prob", "log_probs", "top_k", "cluster_log_probs"} <= set(manifest.tasks)
    assert manifest.source.format == "theano"
    assert manifest.source.files == {"weights.npz": bundle.sha256(weights)}
    assert all(check.passed for check in manifest.verification)
    assert {check.task for check in manifest.verification} == set(manifest.tasks)
    assert set(os.listdir(exported.path)) == {"bundle.json", *manifest.files}
    bundle.check_hashes(exported)


def test_the_weights_read_back_are_the_weights_written(weights, arrays, repository):
    exported = export_file(weights, repository / "words", source="theano")
    model = from_tensors(
        exported.manifest.family, bundle.load_tensors(exported), exported.manifest.attributes
    )
    expected = to_tensors(from_theano(**arrays, num_targets=18))
    for name, tensor in to_tensors(model).items():
        np.testing.assert_array_equal(tensor, expected[name])
    assert not any(tensor.flags.writeable for tensor in bundle.load_tensors(exported).values())


def test_graphs_are_small_and_the_weights_are_stored_once(tmp_path, repository):
    arrays = theano_arrays(clusters=50, block=60, hidden=64)
    exported = export_model(from_theano(**arrays), parse_destination(repository / "words"))
    sizes = {name: file.size for name, file in exported.manifest.files.items()}
    weights = sum(array.nbytes for array in arrays.values())
    assert weights <= sizes.pop(bundle.WEIGHTS) < 1.1 * weights + 20 * bundle.ALIGNMENT
    assert max(sizes.values()) < 64_000
    assert all(tensor.offset % bundle.ALIGNMENT == 0 for tensor in exported.manifest.tensors)


def test_two_equal_exports_have_the_same_digest(weights, repository):
    first = export_file(weights, repository / "words" / "1", source="theano")
    second = export_file(weights, repository / "words" / "2", source="theano")
    other = export_file(
        weights,
        repository / "words" / "3",
        source="theano",
        options=SourceOptions(padding="theano"),
    )
    assert first.manifest.digest == second.manifest.digest != other.manifest.digest


def test_an_existing_version_is_refused_and_stays_as_it_was(weights, repository):
    exported = export_file(weights, repository / "words", source="theano")
    before = exported.manifest.digest
    for to in ("words", "words/1"):
        with pytest.raises(DestinationError, match=r"words: expected a new version, such"):
            export_file(weights, repository / to, source="theano")
    assert bundle.open_bundle(exported.path).manifest.digest == before
    assert list_recursively(repository) == sorted(
        ["words", "words/1", *(f"words/1/{name}" for name in os.listdir(exported.path))]
    )


@pytest.mark.parametrize("to", ["stats", "a b", ".hidden", "words/0", "ü"])
def test_names_and_versions_that_cannot_be_served_are_refused(weights, repository, to):
    with pytest.raises(DestinationError, match=r"expected"):
        export_file(weights, repository / to, source="theano")
    assert not repository.exists()


def test_labels_are_stored_in_the_bundle(weights, repository, tmp_path):
    labels = tmp_path / "words.txt"
    labels.write_text("\n".join(f"wörd {i}" for i in range(18)))
    exported = export_file(weights, repository / "words", source="theano", labels=labels)
    assert bundle.read_labels(exported) == tuple(f"wörd {i}" for i in range(18))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", r"labels: expected 18, got 2"),
        (b"a\n" * 18, r"labels: expected each once, got 'a' for targets 0 and 1"),
        (b"\xff\n" * 18, r"words.txt: expected UTF-8 text, got byte 0"),
        ("a\n".encode("utf-16"), r"words.txt: expected UTF-8 text, got UTF-16: save it as UTF-8"),
        (b"a\r\r\n" * 18, r"words.txt: expected lines that end .* got \\r alone in line 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(weights, repository, tmp_path, content, message):
    labels = tmp_path / "words.txt"
    labels.write_bytes(content)
    with pytest.raises(UserError, match=message):
        export_file(weights, repository / "words", source="theano", labels=labels)
    assert not repository.exists()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_label_file_may_have_a_byte_order_mark_and_either_line_end(
    weights, repository, tmp_path, mark, end
):
    wanted = tuple(f"wörd {i}" for i in range(18))
    labels = tmp_path / "words.txt"
    labels.write_bytes((mark + end.join(wanted)).encode())
    exported = export_file(weights, repository / "words", source="theano", labels=labels)
    assert bundle.read_labels(exported) == wanted
    assert (exported.path / "labels.txt").read_bytes() == "".join(f"{w}\n" for w in wanted).encode()


def test_backslashes_in_a_label_file_are_no_escapes(weights, repository, tmp_path):
    wanted = ("\\", "\\n", "\\udc80", *(f"wörd {i}" for i in range(15)))
    labels = tmp_path / "words.txt"
    labels.write_text("\n".join(wanted))
    exported = export_file(weights, repository / "words", source="theano", labels=labels)
    assert bundle.read_labels(exported) == wanted
    assert exported.manifest.schema_version == 1


def test_a_bundle_that_fails_verification_is_never_visible(weights, repository, monkeypatch):
    bad = bundle.Check(
        task="top_k", case="ordinary", values=1, max_error=1, tolerance=1e-5, passed=False
    )
    monkeypatch.setattr("hsoftmax.exporter.export.verify", lambda *_: (bad,))
    with pytest.raises(VerificationError, match=r"top_k, ordinary logits: expected within 1.0e-05"):
        export_file(weights, repository / "words", source="theano")
    assert not repository.exists()


def test_verification_detects_a_tensor_with_a_wrong_offset(weights, repository):
    exported = export_file(weights, repository / "words", source="theano")
    first, second = (
        t for t in exported.manifest.tensors if t.name in {"level0.bias", "level1.bias"}
    )
    moved = first.model_copy(update={"offset": second.offset})
    tensors = tuple(moved if t.name == first.name else t for t in exported.manifest.tensors)
    checks = exporter.verify(
        exported.path, exported.manifest.model_copy(update={"tensors": tensors})
    )
    assert {c.task for c in checks if not c.passed} == set(exported.manifest.tasks)


def test_an_export_killed_at_any_instant_leaves_nothing_visible(tmp_path, repository):
    weights = tmp_path / "weights.npz"
    np.savez(weights, **theano_arrays(clusters=60, block=60, hidden=64))
    command = [
        sys.executable,
        "-m",
        "hsoftmax",
        "export",
        str(weights),
        "--from",
        "theano",
        "--to",
        str(repository / "words"),
    ]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - started
    (repository / "words" / "1").rename(tmp_path / "finished")
    for fraction in (0.5, 0.7, 0.8, 0.9):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * fraction)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for visible in (repository / "words").glob("[0-9]*"):
            bundle.check_hashes(bundle.open_bundle(visible))
            visible.rename(tmp_path / f"finished {fraction}")
    subprocess.run(command, check=True, capture_output=True)
    assert os.listdir(repository / "words") == ["1"]
    assert json.loads((repository / "words" / "1" / "bundle.json").read_text())["digest"]
