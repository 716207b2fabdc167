"""Tests of files with Theano's arrays."""

from contextlib import nullcontext

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax.exporter import SourceError, export_file
from hsoftmax.exporter.sources import SourceOptions, load
from hsoftmax.models import WeightsError, from_theano, hierarchical_softmax, to_tensors
from hsoftmax.runtime.sessions import open_session
from tests.exporter.conftest import theano_arrays


def tensors_equal(a, b):
    a, b = to_tensors(a), to_tensors(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed, save_file])
def test_npz_and_safetensors_give_the_same_model(tmp_path, arrays, write):
    path = tmp_path / "weights.npz"
    if write is save_file:
        save_file(arrays, path)
    else:
        write(path, **arrays)
    loaded = load(path, "theano", SourceOptions())
    assert tensors_equal(loaded.model, from_theano(**arrays))
    assert loaded.labels is None


def test_n_outputs_of_the_file_is_used_and_the_option_overrides_it(weights):
    assert load(weights, "theano", SourceOptions()).model.num_targets == 18
    assert load(weights, "theano", SourceOptions(num_targets=17)).model.num_targets == 17


def test_unknown_arrays_are_refused_by_name_and_never_read(tmp_path, arrays):
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays, junk=np.array([{}], dtype=object), W2_bias=np.zeros(4))
    message = r"expected only tensors that this format's softmax has, got W2_bias, junk with them"
    with pytest.raises(SourceError, match=message):
        load(path, "theano", SourceOptions())


RECIPES = [2, 5, 12, 17, 101, 10_001]  # with 5, 17, 101 and 10,001 targets a cluster is empty


def recipe(num_targets: int) -> tuple[dict, np.ndarray]:
    """Return arrays of the sizes that Theano's documentation recommends, and hidden rows.

    n_classes = ceil(sqrt(n_outputs)), and as many outputs per class.
    """
    size = int(np.ceil(np.sqrt(num_targets)))
    hidden = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    return theano_arrays(size, size), hidden


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def slot_probabilities(arrays: dict, hidden: np.ndarray, num_targets: int, padding: str):
    """Return p [rows, C, K] of all slots of Theano's h_softmax.

    With `mask`, its softmaxes leave out slots and clusters without a target.
    """
    W1, b1, W2, b2 = (array.astype(np.float64) for array in arrays.values())
    has_target = (np.arange(b2.size) < num_targets).reshape(b2.shape)
    used = has_target.any(axis=1)
    clusters, inside = hidden @ W1 + b1, np.einsum("bh,chk->bck", hidden, W2) + b2
    if padding == "mask":
        clusters = np.where(used, clusters, -np.inf)
        inside = np.where(has_target | ~used[:, None], inside, -np.inf)
    return softmax(clusters)[..., None] * softmax(inside)


@pytest.fixture(
    scope="module", params=[(n, p) for n in RECIPES for p in ("mask", "theano")], ids=str
)
def exported_recipe(request, tmp_path_factory):
    """Return (number of targets, p of all slots, function that runs a task) of an export."""
    num_targets, padding = request.param
    arrays, hidden = recipe(num_targets)
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "weights.npz"
    np.savez(path, **arrays, n_outputs=num_targets)
    options = SourceOptions(padding=padding)
    exported = export_file(path, folder / "words", source="theano", options=options)

    def run(task, **feeds):
        return open_session(exported.path / f"{task}.onnx").run(None, {"hidden": hidden, **feeds})

    return num_targets, slot_probabilities(arrays, hidden, num_targets, padding), run


def test_theanos_own_recipe_answers_theanos_numbers(exported_recipe):
    num_targets, slots, run = exported_recipe
    full = np.exp(run("log_probs")[0])
    targets = slots.reshape(len(slots), -1)[:, :num_targets]
    np.testing.assert_allclose(full, targets, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(np.exp(run("cluster_log_probs")[0]), slots.sum(axis=2), rtol=1e-4)
    pairs = {"row": np.full(num_targets, 1), "target": np.arange(num_targets)}
    np.testing.assert_allclose(np.exp(run("target_log_prob", **pairs)[0]), targets[1], rtol=1e-4)


def test_slots_without_a_target_are_never_among_the_likeliest_or_drawn(exported_recipe):
    num_targets, slots, run = exported_recipe
    targets = slots.reshape(len(slots), -1)[:, :num_targets]
    k = min(num_targets, 7)
    log_prob, target, _, exact = run("top_k", k=np.array([k]), max_blocks=np.array([0]))
    np.testing.assert_allclose(np.exp(log_prob), -np.sort(-targets)[:, :k], rtol=1e-4)
    assert (target < num_targets).all()
    assert exact.all()
    noise = np.random.default_rng(2).random((3, 500, 2), dtype=np.float32)
    noise[:, :2] = [[0.0], [1 - 2**-24]]
    drawn, log_prob = run("sample", noise=noise)
    assert ((drawn >= 0) & (drawn < num_targets)).all()
    of_drawn = np.take_along_axis(targets, drawn, axis=1)
    np.testing.assert_allclose(np.exp(log_prob), of_drawn, rtol=1e-4)


def test_an_empty_cluster_keeps_its_mass_with_theano_padding_and_gets_none_with_mask(tmp_path):
    arrays, hidden = recipe(10_001)
    np.savez(tmp_path / "weights.npz", **arrays, n_outputs=10_001)
    last = {}
    for padding in ("theano", "mask"):
        options = SourceOptions(padding=padding)
        model = load(tmp_path / "weights.npz", "theano", options).model
        last[padding] = np.exp(hierarchical_softmax.cluster_log_probs(model, hidden))[:, -1]
    assert (last["theano"] > 0).all()
    assert (last["mask"] == 0).all()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"n_classes": 5, "n_outputs_per_class": 4, "batch_size": 3}, None),
        ({"n_classes": 4}, r"n_classes: expected 5 as W2 has, got 4"),
        ({"n_outputs_per_class": 5}, r"n_outputs_per_class: expected 4 as W2 has, got 5"),
    ],
)
def test_the_sizes_that_h_softmax_takes_must_be_those_of_the_arrays(
    tmp_path, arrays, extra, message
):
    np.savez(tmp_path / "weights.npz", **arrays, **extra)
    with nullcontext() if message is None else pytest.raises(SourceError, match=message):
        assert load(tmp_path / "weights.npz", "theano", SourceOptions()).model.num_targets == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W2": None}, r"weights.npz: expected W1, b1, W2, b2, got no W2"),
        ({"W2": np.zeros((5, 7, 4))}, r"W2: expected \[5, 6, 4\], got \[5, 7, 4\]"),
        ({"b1": np.zeros(4)}, r"b1: expected \[5\], got \[4\]"),
        ({"n_outputs": 21}, r"num_targets: expected 1 to 20, got 21"),
        ({"n_outputs": 0}, r"num_targets: expected 1 to 20, got 0"),
        ({"n_outputs": 1.5}, r"n_outputs: expected one integer, got float64 \[\]"),
        ({"b2": np.full((5, 4), np.nan)}, r"level 1 \(W2, b2\) bias: expected finite .* got nan"),
        ({"W1": np.full((6, 5), -np.inf)}, r"level 0 \(W1, b1\) weight: .* got -inf at \[0, 0\]"),
        ({"b2": np.array([[None]])}, r"b2.npy: expected numbers, got an array of Python objects"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, changes, message):
    path = tmp_path / "weights.npz"
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    with pytest.raises((SourceError, WeightsError), match=message):
        load(path, "theano", SourceOptions())


@pytest.mark.parametrize("keep", [0, 3, 100, 400, -1])
def test_a_truncated_file_is_refused(weights, keep):
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"weights.npz: expected"):
        load(weights, "theano", SourceOptions())


def test_a_truncated_safetensors_is_refused(tmp_path, arrays):
    path = tmp_path / "weights.safetensors"
    save_file(arrays, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"expected whole safetensors"):
        load(path, "theano", SourceOptions())


def test_a_pickle_of_other_objects_is_refused_and_not_run(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(SourceError, match=r"expected W1, b1, W2, b2, got no W1, b1, W2, b2"):
        load(path, "theano", SourceOptions())
    assert not (tmp_path / "owned").exists()


def test_an_unknown_format_names_the_known_ones(weights):
    with pytest.raises(SourceError, match=r"format: expected one of .*theano.*, got torch7"):
        load(weights, "torch7", SourceOptions())
