"""Tests of a featurizer in a bundle: written once, mapped, hashed, refused where it is damaged."""

import json

import fasttext
import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.bundle import BundleError
from hsoftmax.exporter import SourceOptions, export_file
from hsoftmax.featurizers import DESCRIPTION, FEATURES, featurize, open_featurizer
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.exporter.sources.test_fasttext import SENTENCES, real_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_file(real_model(), tmp_path_factory.mktemp("text") / "lid", source="fasttext")


def test_a_bundle_carries_its_featurizer_and_gives_fasttexts_numbers(exported):
    assert exported.manifest.schema_version == 2
    assert exported.manifest.featurizer == DESCRIPTION
    assert {DESCRIPTION, FEATURES} <= exported.manifest.files.keys()
    oracle = fasttext.load_model(str(real_model()))
    featurizer = open_featurizer(bundle.open_bundle(exported.path))
    rows = featurize(featurizer, list(SENTENCES.values()))
    expected = np.array([oracle.get_sentence_vector(text) for text in SENTENCES.values()])
    np.testing.assert_array_equal(rows.hidden, expected)


def test_the_arrays_are_mapped_and_not_copied(exported):
    featurizer = open_featurizer(exported)
    assert isinstance(featurizer.matrix.codes.base, np.memmap | np.ndarray)
    assert not featurizer.matrix.codes.flags.writeable
    assert not featurizer.matrix.codes.flags.owndata


def test_the_description_states_kind_and_version(exported):
    description = json.loads(exported.file(DESCRIPTION).read_text())
    assert (description["kind"], description["version"]) == ("fasttext", 1)
    assert description["model"] == "supervised"


def test_without_text_nothing_but_the_head_is_written(tmp_path, exported):
    head = export_file(
        real_model(), tmp_path / "lid", source="fasttext", options=SourceOptions(text=False)
    )
    assert head.manifest.featurizer is None
    assert head.manifest.schema_version == 1
    assert open_featurizer(head) is None
    assert not {DESCRIPTION, FEATURES} & head.manifest.files.keys()
    weights = bundle.WEIGHTS
    assert head.manifest.files[weights] == exported.manifest.files[weights]


def test_changed_features_are_found_by_their_hash(tmp_path):
    made = export_file(
        FastTextFile().write(tmp_path / "model.bin"), tmp_path / "small", source="fasttext"
    )
    path = made.file(FEATURES)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"featurizer.bin: expected SHA-256"):
        bundle.open_bundle(made.path)


def changed_bundle(tmp_path, change):
    """Return a bundle whose description was changed, opened without a look at the hashes."""
    made = export_file(
        FastTextFile().write(tmp_path / "model.bin"), tmp_path / "small", source="fasttext"
    )
    description = json.loads(made.file(DESCRIPTION).read_text())
    change(description)
    made.file(DESCRIPTION).write_text(json.dumps(description))
    return made


def set_tensor(name, **fields):
    def change(description):
        for tensor in description["tensors"]:
            if tensor["name"] == name:
                tensor.update(fields)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), r"featurizer.json: fasttext.version: Input should be 1"),
        (lambda d: d.update(kind="wordpiece"), r"featurizer.json: .*'wordpiece'"),
        (lambda d: d.update(tensors=d["tensors"][1:]), r"expected tensor 'words.text', got none"),
        (lambda d: d.update(words=9), r"words: expected at most 4, got 9"),
        (lambda d: d.update(maxn=33), r"maxn: expected 0 to 32, got 33"),
        (lambda d: d.update(maxn=3), r"bucket: expected at least 1"),
        (lambda d: d.update(maxn=3, bucket=9), r"input: expected 11 rows, got 2"),
        (lambda d: d.update(hidden_size=5), r"expected vectors of the head's hidden_size 4"),
        (set_tensor("input.weight", shape=[10**6, 4]), r"expected input.weight to end within"),
        (set_tensor("input.weight", shape=[4, 2]), r"expected vectors of .* 4, got 2"),
        (set_tensor("input.weight", dtype="int32"), r"expected float32 with 2 axes, got int32"),
        (set_tensor("words.slots", shape=[8]), r"words: expected 16 slots, got 8"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(BundleError, match=message) as caught:
        open_featurizer(changed_bundle(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_bundle_without_its_features_is_refused(tmp_path):
    made = export_file(
        FastTextFile().write(tmp_path / "model.bin"), tmp_path / "small", source="fasttext"
    )
    files = {name: file for name, file in made.manifest.files.items() if name != FEATURES}
    manifest = made.manifest.model_copy(update={"files": files})
    with pytest.raises(BundleError, match=r"expected featurizer.bin beside featurizer.json"):
        open_featurizer(bundle.Bundle(made.path, manifest))


@pytest.mark.parametrize("name", [DESCRIPTION, FEATURES])
def test_any_damage_is_an_error_of_the_bundle_or_other_numbers(tmp_path, name):
    """The service parses these files only after their hashes, but a hash proves no good will."""
    words = {"</s>": 9, "x": 1, "été": 1}
    file = FastTextFile(words=words, quantised_input=True, norms=True, pruned=2)
    made = export_file(file.write(tmp_path / "model.bin"), tmp_path / "small", source="fasttext")
    content = made.file(name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        made.file(name).write_bytes(damaged)
        try:
            featurizer = open_featurizer(made)
            assert len(featurize(featurizer, ["x été unseen", ""]).hidden) == 2
        except BundleError:
            refused += 1
    assert refused
