"""Tests of the sources `two-level`, `levels` and `theanolm`, and of format detection."""

import sys

import h5py
import numpy as np
import pytest

from hsoftmax.exporter import SourceError, export_file
from hsoftmax.exporter.sources import SourceOptions, load
from hsoftmax.models import WeightsError, from_theano, hierarchical_softmax

HIDDEN = 4
RNG = np.random.default_rng(0)
TWO = {
    "W1": RNG.normal(size=(HIDDEN, 3)),
    "b1": RNG.normal(size=3),
    "weight": RNG.normal(size=(7, HIDDEN)),
    "bias": RNG.normal(size=7),
    "class_of": np.array([2, 0, 2, 1, 0, 2, 0]),
}
LEVELS = {
    "weight_0": RNG.normal(size=(2, HIDDEN)),
    "bias_0": np.zeros(2),
    "offsets_0": np.array([0, 2]),
    "weight_1": RNG.normal(size=(4, HIDDEN)),
    "bias_1": np.zeros(4),
    "offsets_1": np.array([0, 1, 4]),
    "weight_2": RNG.normal(size=(9, HIDDEN)),
    "bias_2": np.zeros(9),
    "offsets_2": np.array([0, 2, 3, 7, 9]),
}
STATES = np.random.default_rng(1).normal(size=(3, HIDDEN))


def write_file(tmp_path, arrays, **changes):
    path = tmp_path / "weights.npz"
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def naive_two_level(states, W1, b1, weight, bias, class_of):
    clusters = log_softmax(states @ W1 + b1)
    full = np.empty((len(states), len(bias)))
    for cluster in range(W1.shape[1]):
        inside = np.flatnonzero(class_of == cluster)
        local = log_softmax(states @ weight[inside].T + bias[inside])
        full[:, inside] = clusters[:, [cluster]] + local
    return full


@pytest.mark.parametrize(
    "class_of", [TWO["class_of"], np.sort(TWO["class_of"]), TWO["class_of"].astype(np.uint8)]
)
def test_targets_may_be_in_any_cluster_in_any_order(tmp_path, class_of):
    path = write_file(tmp_path, TWO, class_of=class_of)
    model = load(path, "two-level", SourceOptions()).model
    expected = naive_two_level(STATES, **(TWO | {"class_of": class_of}))
    np.testing.assert_allclose(hierarchical_softmax.log_probs(model, STATES), expected, atol=1e-6)
    assert (model.target_rows is None) == bool((np.diff(class_of.astype(int)) >= 0).all())


def test_contiguous_clusters_may_be_given_by_offsets(tmp_path):
    path = write_file(tmp_path, TWO, class_of=None, offsets=np.array([0, 3, 4, 7]))
    expected = naive_two_level(STATES, **(TWO | {"class_of": np.array([0, 0, 0, 1, 2, 2, 2])}))
    model = load(path, "auto", SourceOptions()).model
    np.testing.assert_allclose(hierarchical_softmax.log_probs(model, STATES), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": None}, r"weights.npz: expected W1, b1, weight, bias, got no weight"),
        ({"class_of": None}, r"expected class_of or offsets, got neither"),
        ({"offsets": np.array([0, 3, 4, 7])}, r"expected .*, got class_of and offsets"),
        ({"class_of": np.array([2, 0, 2, 0, 0, 2, 0])}, r"cluster 1: expected at least one target"),
        ({"class_of": np.array([2, 0, 2, 1, 0, 2, 3])}, r"class_of: expected 0 to 2, got 0 to 3"),
        ({"class_of": np.array([2, 0, 2, 1, 0, 2, -1])}, r"class_of: expected 0 to 2, got -1 to 2"),
        ({"class_of": np.zeros(6, dtype=int)}, r"class_of: expected \[7\], got \[6\]"),
        ({"class_of": np.zeros(7)}, r"class_of: expected integers, got dtype float64"),
        (
            {"class_of": None, "offsets": np.array([0, 3, 3, 7])},
            r"level 1 \(weight, bias\) block 1: expected at least one row, got none",
        ),
        ({"bias": np.zeros(6)}, r"bias: expected \[7\], got \[6\]"),
        ({"W1": np.zeros((HIDDEN + 1, 3))}, r"level 1 weight: expected \[7, 5\], got \[7, 4\]"),
        ({"W1": np.zeros(3)}, r"W1: expected \[H, C\], got \[3\]"),
    ],
)
def test_two_levels_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises((SourceError, WeightsError), match=message):
        load(write_file(tmp_path, TWO, **changes), "two-level", SourceOptions())


def test_a_wrong_number_of_targets_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"num_targets: expected 7, the rows of weight, got 6"):
        load(write_file(tmp_path, TWO), "two-level", SourceOptions(num_targets=6))


def test_three_levels_are_read_and_exported(tmp_path, repository):
    path = write_file(tmp_path, LEVELS, target_rows=np.array([8, 0, 3, 5, 1, 2, 4, 6, 7]))
    exported = export_file(path, repository / "codes", source="auto")
    assert exported.manifest.source.format == "levels"
    assert (exported.manifest.num_targets, exported.manifest.attributes["levels"]) == (9, 3)
    assert all(check.passed for check in exported.manifest.verification)


def test_fewer_targets_than_rows_are_padding(tmp_path):
    model = load(write_file(tmp_path, LEVELS), "levels", SourceOptions(num_targets=8)).model
    assert model.num_targets == 8
    np.testing.assert_allclose(np.exp(hierarchical_softmax.log_probs(model, STATES)).sum(1), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias_1": None}, r"expected weight_1, bias_1, offsets_1, got no bias_1"),
        ({"weight_0": None, "bias_0": None, "offsets_0": None}, r"expected weight_0, .* got no"),
        ({"offsets_2": np.array([0, 2, 9])}, r"level 2: expected 4 blocks, got 2"),
        ({"target_rows": np.array([[0]])}, r"target_rows: expected \[N\], got \[1, 1\]"),
        ({"target_rows": np.array([0, 0])}, r"target_rows: expected a row of its own"),
    ],
)
def test_levels_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises((SourceError, WeightsError), match=message):
        load(write_file(tmp_path, LEVELS, **changes), "levels", SourceOptions())


# --- TheanoLM -----------------------------------------------------------------------------------

WORDS = [f"wörd{i}" for i in range(11)]  # 4 clusters of 3 rows, one of them padding


def theanolm(path, *, words=WORDS, classes=range(11), layer="output_layer", leave_out=()):
    shapes = {"input/W": (HIDDEN, 4), "input/b": (4,), "level1/W": (4, HIDDEN, 3)}
    shapes["level1/b"] = (4, 3)
    rng = np.random.default_rng(2)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if name not in leave_out:
                file[f"layers/{layer}/{name}"] = array
                file[f"layers/{layer}/{name}_gradient"] = np.zeros_like(array)
        file["layers/hidden_layer/input/W"] = np.zeros((2, 2))
        file["trainer/epoch"] = 3
        if words:
            file["vocabulary/words"] = np.array(words, dtype=h5py.string_dtype())
            file["vocabulary/probs"] = np.ones(len(words))
        if classes is not None:
            file["vocabulary/classes"] = np.array(classes)
    return path, arrays.values()


def test_theanolms_layer_is_theanos_softmax_with_the_words_as_labels(tmp_path):
    path, arrays = theanolm(tmp_path / "model.h5")
    loaded = load(path, "auto", SourceOptions())
    expected = hierarchical_softmax.log_probs(from_theano(*arrays, num_targets=11), STATES)
    np.testing.assert_array_equal(hierarchical_softmax.log_probs(loaded.model, STATES), expected)
    assert loaded.labels == tuple(WORDS)


def test_another_number_of_targets_than_the_classes_is_refused(tmp_path):
    path, _ = theanolm(tmp_path / "model.h5")
    with pytest.raises(SourceError, match=r"11, as vocabulary/classes has"):
        load(path, "theanolm", SourceOptions(num_targets=12))
    assert load(path, "theanolm", SourceOptions(num_targets=11)).model.num_targets == 11


def test_bytes_of_a_word_that_are_no_utf8_become_surrogates(tmp_path):
    path, _ = theanolm(tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        file["vocabulary/words"][0] = b"caf\xe9"
    assert load(path, "theanolm", SourceOptions()).labels == ("caf\udce9", *WORDS[1:])


def test_targets_are_classes_and_labels_follow_them(tmp_path):
    classes = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    path, _ = theanolm(tmp_path / "model.h5", classes=classes)
    assert load(path, "theanolm", SourceOptions()).labels == tuple(reversed(WORDS))
    shared = [0, 0, *range(1, 11)]
    path, _ = theanolm(tmp_path / "model.h5", words=[*WORDS, "more"], classes=shared)
    loaded = load(path, "theanolm", SourceOptions())
    assert (loaded.model.num_targets, loaded.labels) == (11, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"leave_out": ("level1/W", "level1/b")},
            r"expected one layer with input/W, .* got layers",
        ),
        ({"classes": [0, 1]}, r"num_targets: expected 10 to 12 .* got 2"),
        ({"classes": None}, r"expected vocabulary/classes or --num-targets, got neither"),
    ],
)
def test_hdf5_without_the_layer_or_of_another_size_is_one_line(tmp_path, change, message):
    path, _ = theanolm(tmp_path / "model.h5", **change)
    with pytest.raises((SourceError, WeightsError), match=message):
        load(path, "theanolm", SourceOptions())


def test_other_or_damaged_files_are_not_hdf5(tmp_path):
    path, _ = theanolm(tmp_path / "model.h5")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(SourceError, match=r"expected a whole HDF5 file, got one that is damaged"):
        load(path, "theanolm", SourceOptions())
    with pytest.raises(SourceError, match=r"expected an HDF5 file of TheanoLM's, got an? npz"):
        load(write_file(tmp_path, TWO), "theanolm", SourceOptions())


def test_without_h5py_one_line_names_the_extra(tmp_path, monkeypatch):
    path, _ = theanolm(tmp_path / "model.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SourceError, match=r"pip install '\.\[hdf5\]'"):
        load(path, "auto", SourceOptions())


# --- auto ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": np.zeros((3, 2)), "bias": np.zeros(3)}, r"got npz with bias, weight$"),
        ({f"a{i}": np.zeros(1) for i in range(12)}, r"got npz with .* and 4 more$"),
        (b"hello, world, this is text", r"got an unknown file"),
        (b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", r"got a pickle"),
        (b"", r"got an unknown file"),
        (
            TWO | {"W2": np.zeros(1), "b2": np.zeros(1)},
            r"expected one format, got theano: ",
        ),
    ],
)
def test_unknown_content_is_refused_with_its_description(tmp_path, content, message):
    path = tmp_path / "weights"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with path.open("wb") as file:
            np.savez(file, **content)
    with pytest.raises(SourceError, match=message) as raised:
        load(path, "auto", SourceOptions())
    assert "\n" not in str(raised.value)


def test_the_supported_formats_are_named(tmp_path):
    (tmp_path / "x").write_bytes(b"?" * 100)
    with pytest.raises(SourceError, match=r"expected weights of one of theano, .*pytorch"):
        load(tmp_path / "x", "auto", SourceOptions())
