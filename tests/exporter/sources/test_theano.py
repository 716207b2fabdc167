"""Tests of files with Theano's arrays."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax.exporter import SourceError
from hsoftmax.exporter.sources import SourceOptions, load
from hsoftmax.models import WeightsError, from_theano, to_tensors


def tensors_equal(a, b):
    a, b = to_tensors(a), to_tensors(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed, save_file])
def test_npz_and_safetensors_give_the_same_model(tmp_path, arrays, write):
    path = tmp_path / "weights.npz"
    if write is save_file:
        save_file({**arrays, "unrelated": np.zeros(2)}, path)
    else:
        write(path, **arrays, unrelated=np.zeros(2))
    loaded = load(path, "theano", SourceOptions())
    assert tensors_equal(loaded.model, from_theano(**arrays))
    assert loaded.labels is None


def test_n_outputs_of_the_file_is_used_and_the_option_overrides_it(weights):
    assert load(weights, "theano", SourceOptions()).model.num_targets == 18
    assert load(weights, "theano", SourceOptions(num_targets=17)).model.num_targets == 17


def test_unrelated_object_arrays_are_never_read(tmp_path, arrays):
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays, junk=np.array([{}], dtype=object))
    assert load(path, "theano", SourceOptions()).model.num_targets == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W2": None}, r"weights.npz: expected W1, b1, W2, b2, got no W2"),
        ({"W2": np.zeros((5, 7, 4))}, r"W2: expected \[5, 6, 4\], got \[5, 7, 4\]"),
        ({"b1": np.zeros(4)}, r"b1: expected \[5\], got \[4\]"),
        ({"n_outputs": 21}, r"num_targets: expected 1 to 20, got 21"),
        ({"n_outputs": 16}, r"num_targets: expected 17 to 20 .* got 16, which leaves a cluster"),
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


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(SourceError, match=r"expected .npz or safetensors, got a file that is"):
        load(path, "theano", SourceOptions())
    assert not (tmp_path / "owned").exists()


def test_an_unknown_format_names_the_known_ones(weights):
    with pytest.raises(SourceError, match=r"format: expected one of .*theano.*, got torch7"):
        load(weights, "torch7", SourceOptions())
