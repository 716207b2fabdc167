"""Weight normalisation is multiplied out: g * v / |v|, in both of PyTorch's ways to save it."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax import models
from hsoftmax.exporter import SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.exporter.sources.weight_norm import multiply_weight_norms
from tests.exporter.conftest import theano_arrays

from .saved_tensors import MODULES, NO_OPTIONS

HIDDEN = np.random.default_rng(0).normal(size=(3, 6))
PARTS = {
    "weight_norm": ("{0}weight_g", "{0}weight_v"),
    "parametrizations": (
        "{0}parametrizations.weight.original0",
        "{0}parametrizations.weight.original1",
    ),
}
CASES = ("pytorch", "pytorch, all biases", "transformer-xl, div_val 2", "fairseq, tied")


def normalised(tensors, names, axis: int | None = 0) -> tuple[dict, dict]:
    """Return the tensors with random g and v for each 2-D weight, and the weights they make."""
    rng, saved, weights = np.random.default_rng(1), {}, dict(tensors)
    for name, tensor in tensors.items():
        if not name.endswith("weight") or tensor.ndim != 2 or "emb" in name:
            saved[name] = tensor
            continue
        v = rng.normal(size=tensor.shape).astype(np.float32)
        other = None if axis is None else 1 - axis
        norm = np.sqrt((v.astype(np.float64) ** 2).sum(axis=other, keepdims=axis is not None))
        g = np.asarray(rng.normal(size=norm.shape), np.float32)
        before = name.removesuffix("weight")
        if not before.endswith("."):  # cluster_weight
            saved[f"{name}_g"], saved[f"{name}_v"] = g, v
        else:
            saved |= {part.format(before): t for part, t in zip(names, (g, v), strict=True)}
        weights[name] = g * (v / norm)
    return saved, weights


def log_probs(path, source, options=NO_OPTIONS):
    model = load(path, source, options).model
    return models.reference(model).log_probs(model, HIDDEN)


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("case", CASES)
def test_lengths_and_directions_give_the_weights(tmp_path, case, parts, axis):
    saved = MODULES[case]
    tensors, weights = normalised(saved.tensors, PARTS[parts], axis)
    for name, content in (("normalised", tensors), ("multiplied", weights)):
        save_file({n: np.array(t, order="C") for n, t in content.items()}, tmp_path / name)
    actual = log_probs(tmp_path / "normalised", "auto", saved.options)
    expected = log_probs(tmp_path / "multiplied", saved.source, saved.options)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert detect_source(tmp_path / "normalised").source == saved.source


def test_a_normalised_softmax_is_exported(tmp_path, repository):
    tensors, _ = normalised(MODULES["pytorch"].tensors, PARTS["parametrizations"])
    save_file(tensors, tmp_path / "model.safetensors")
    exported = export_file(tmp_path / "model.safetensors", repository / "words", source="auto")
    assert all(check.passed for check in exported.manifest.verification)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("missing", [0, 1])
def test_one_part_without_the_other_is_refused(tmp_path, parts, missing):
    tensors, _ = normalised(MODULES["pytorch"].tensors, PARTS[parts])
    del tensors[PARTS[parts][missing].format("lm.softmax.tail.0.0.")]
    save_file(tensors, tmp_path / "model")
    with pytest.raises(SourceError, match=r"expected lm.softmax.tail.0.0.weight, got none"):
        load(tmp_path / "model", "pytorch", NO_OPTIONS)


@pytest.mark.parametrize("parts", PARTS)
def test_parts_beside_a_whole_weight_are_refused_by_name(tmp_path, parts):
    names = [name.format("lm.softmax.head.") for name in PARTS[parts]]
    extra = {names[0]: np.ones((7, 1), np.float32), names[1]: np.ones((7, 6), np.float32)}
    save_file({**MODULES["pytorch"].tensors, **extra}, tmp_path / "model")
    with pytest.raises(SourceError, match=rf"softmax has, got {names[0]}, {names[1]} with them"):
        load(tmp_path / "model", "pytorch", NO_OPTIONS)


@pytest.mark.parametrize(
    ("g", "v", "message"),
    [
        ((7, 1), (7, 6), None),
        ((6, 1), (7, 6), r"weight: expected lengths of rows of a weight \[7, 6\], got \[6, 1\]"),
        ((7,), (7, 6), r"got \[7\]"),
        ((7, 6), (7, 6), r"got \[7, 6\]"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(tmp_path, g, v, message):
    tensors = {"weight_g": np.ones(g, np.float32), "weight_v": np.ones(v, np.float32)}
    if message is None:
        product = multiply_weight_norms(tensors, tmp_path / "x")["weight"]
        np.testing.assert_allclose(product, np.full((7, 6), 6**-0.5), rtol=1e-15)
        return
    with pytest.raises(SourceError, match=message):
        multiply_weight_norms(tensors, tmp_path / "x")


def test_a_direction_of_zeros_is_refused(tmp_path):
    tensors = {"a.weight_g": np.ones((2, 1)), "a.weight_v": np.array([[1.0, 2], [0, 0]])}
    with pytest.raises(SourceError, match=r"a.weight: expected directions with a length, got one"):
        multiply_weight_norms(tensors, tmp_path / "x")


def test_other_parametrizations_are_refused_by_name(tmp_path):
    tensors = dict(MODULES["pytorch"].tensors)
    before = "lm.softmax.head.parametrizations.weight."
    tensors[f"{before}original"] = tensors.pop("lm.softmax.head.weight")
    tensors[f"{before}0._u"] = np.ones(7, np.float32)
    save_file(tensors, tmp_path / "model")
    with pytest.raises(SourceError, match=r"expected tail.0.1.weight and head.weight"):
        load(tmp_path / "model", "pytorch", SourceOptions())


def test_plain_arrays_named_weight_are_multiplied_out_too(tmp_path):
    arrays = theano_arrays(3, 1)
    two = {"W1": arrays["W1"], "b1": arrays["b1"], "bias": np.zeros(4), "offsets": [0, 1, 2, 4]}
    v = np.random.default_rng(2).normal(size=(4, 6))
    g = np.linalg.norm(v, axis=1, keepdims=True)
    np.savez(tmp_path / "a.npz", **two, weight_g=g, weight_v=v)
    np.savez(tmp_path / "b.npz", **two, weight=v)
    actual, expected = (log_probs(tmp_path / f"{name}.npz", "auto") for name in "ab")
    np.testing.assert_allclose(actual, expected, atol=1e-6)
