"""Tests of the native kernel for sample of an adaptive softmax: right draws, equal bits."""

import numpy as np
import pytest

from hsoftmax.exporter import PrecisionOptions, export_model, parse_destination
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import adaptive_softmax as reference
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.native import NativeError
from hsoftmax.runtime.sessions import open_single_thread_session
from tests.models.adaptive import adaptive
from tests.models.strategies import hidden_for

from .kernels import AdaptiveSample, AdaptiveTargetLogProb
from .test_native_adaptive import MODELS, tolerance_for

SAMPLES = 30


def kernel_of(library, name, precision="fp32", kind=AdaptiveSample):
    """The kernel over a model's stored tensors, and the model that they represent."""
    trained = adaptive(**MODELS[name])
    tensors = {n: np.ascontiguousarray(t) for n, t in stored_tensors(trained, precision).items()}
    model = from_tensors("AdaptiveSoftmax", tensors, attributes(trained))
    return kind(library, tensors, model.cutoffs), model


def invert(log_p, number):
    """Return the first position whose cumulative sum exceeds the number, and its distance."""
    sums = np.cumsum(np.exp(log_p))
    sums /= sums[-1]
    return int(np.argmax(sums > number)), np.abs(sums[:-1] - number).min(initial=1.0)


def draw(model, clusters, full, numbers):
    """Draw one target in float64; also return the distance of the numbers to the next draw."""
    row, distance = invert(clusters, numbers[0])
    if row < model.shortlist:
        return row, distance
    start, end = model.bounds[row - model.shortlist : row - model.shortlist + 2]
    position, other = invert(full[start:end] - clusters[row], numbers[1])
    return start + position, min(distance, other)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_every_draw_is_what_the_noise_says(library, instruction_set, name, precision):
    kernel, model = kernel_of(library, name, precision)
    hidden, numbers = hidden_for(model, 3, scale=0.3), noise(7, 3, SAMPLES, 2)
    target, log_prob = kernel({"hidden": hidden, "noise": numbers})
    full, clusters = reference.log_probs(model, hidden), reference.cluster_log_probs(model, hidden)
    for i, j in np.ndindex(3, SAMPLES):
        expected, distance = draw(model, clusters[i], full[i], numbers[i, j])
        assert target[i, j] == expected or distance < 1e-5
    expected = np.take_along_axis(full, target, axis=1)
    np.testing.assert_allclose(log_prob, expected, **tolerance_for(model, hidden))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_a_draw_has_the_same_bits_alone_in_a_batch_and_in_target_log_prob(library, name, precision):
    kernel, model = kernel_of(library, name, precision)
    hidden, numbers = hidden_for(model, 140, scale=0.3), noise(7, 140, 5, 2)
    target, log_prob = kernel({"hidden": hidden, "noise": numbers})
    for i in range(0, 140, 9):
        for j in range(5):
            alone = kernel({"hidden": hidden[i : i + 1], "noise": numbers[i : i + 1, j : j + 1]})
            assert (alone[0][0, 0], alone[1][0, 0]) == (target[i, j], log_prob[i, j])
    paths, _ = kernel_of(library, name, precision, AdaptiveTargetLogProb)
    pairs = {"row": np.repeat(np.arange(140), 5), "target": target.ravel()}
    np.testing.assert_array_equal(paths({"hidden": hidden, **pairs})[0], log_prob.ravel())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_draws_the_same(library, instruction_set, name, precision):
    kernel, model = kernel_of(library, name, precision)
    feeds = {"hidden": hidden_for(model, 10), "noise": noise(7, 10, SAMPLES, 2)}
    here = kernel(feeds)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    for one, best in zip(here, kernel(feeds), strict=True):
        np.testing.assert_array_equal(one, best)


@pytest.mark.parametrize("number", [0.0, 2**-25, 1 - 2**-24])
@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_and_the_largest_noise_draw_targets(library, name, number):
    kernel, model = kernel_of(library, name)
    hidden = hidden_for(model, 4)
    numbers = np.full((4, 2, 2), number, np.float32)
    target, log_prob = kernel({"hidden": hidden, "noise": numbers})
    expected = np.take_along_axis(reference.log_probs(model, hidden), target, axis=1)
    np.testing.assert_allclose(log_prob, expected, **tolerance_for(model, hidden))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_draws_the_same_with_kernels_and_without(library, tmp_path, precision):
    model = adaptive(**MODELS["layers of several tiles"])
    to, options = parse_destination(tmp_path / "words"), PrecisionOptions(precision)
    exported = export_model(model, to, precision_options=options)
    feeds = {"hidden": hidden_for(model, 9, scale=0.1), "noise": noise(5, 9, 40, 2)}
    by_kernel, by_graph = (
        open_single_thread_session(exported, "sample", native=native) for native in (True, False)
    )
    assert (by_kernel.kernel is None, by_graph.kernel is None) == (False, True)
    (target, log_prob), (same, expected) = by_kernel.run(feeds), by_graph.run(feeds)
    assert (target == same).mean() > 0.99  # a number between two neighbours may draw either
    is_same = target == same
    near = tolerance_for(model, feeds["hidden"])
    np.testing.assert_allclose(log_prob[is_same], expected[is_same], **near)


def test_numbers_that_overflow_are_not_finite(library):
    kernel, model = kernel_of(library, "two tails with projections and head bias")
    for value in (np.nan, 3e38):
        hidden = np.full((2, model.hidden_size), value, np.float32)
        target, log_prob = kernel({"hidden": hidden, "noise": noise(7, 2, SAMPLES, 2)})
        assert not np.isfinite(log_prob).any()
        assert ((target >= 0) & (target < model.num_targets)).all()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_samples_have_no_results(library, shape):
    kernel, model = kernel_of(library, "one tail")
    numbers = np.zeros((*shape, 2), np.float32)
    target, log_prob = kernel({"hidden": hidden_for(model, shape[0]), "noise": numbers})
    assert target.shape == log_prob.shape == shape


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (np.zeros((2, 3, 1), np.float32), r"noise: expected float32 \[2, samples, 2\], got"),
        (np.zeros((3, 3, 2), np.float32), r"got float32 \[3, 3, 2\]"),
        (np.zeros((2, 3, 2)), r"got float64 \[2, 3, 2\]"),
        (np.full((2, 3, 2), 1, np.float32), "expected valid sizes"),
        (np.full((2, 3, 2), np.nan, np.float32), "expected valid sizes"),
    ],
)
def test_bad_noise_is_refused(library, numbers, sentence):
    kernel, model = kernel_of(library, "one tail")
    with pytest.raises(NativeError, match=sentence):
        kernel({"hidden": hidden_for(model, 2), "noise": numbers})
