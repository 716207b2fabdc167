"""Tests of the native kernel for sample: the right draws, with the bits of target_log_prob."""

import numpy as np
import pytest

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models import hierarchical_softmax as reference
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.native import FreeThreads, NativeError, StopFlag
from tests.exporter.graphs.task_runner import TOLERANCE
from tests.exporter.graphs.test_hierarchical_softmax import (
    MODELS,
    hidden_for,
    softmax,
    with_logits_of,
)
from tests.runtime.kernels import LevelsSample, LevelsTargetLogProb

SAMPLES = 30
LARGEST_NOISE = 1 - 2**-24


def build(name):
    params = dict(MODELS[name])
    return softmax(*params.pop("sizes"), **params)


def stored(model, precision="fp32"):
    """The tensors of a model as a bundle has them, and the model that they represent."""
    tensors = stored_tensors(model, precision)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return contiguous, from_tensors("HierarchicalSoftmax", tensors, attributes(model))


def kernel_of(library, model, precision="fp32", threads=None):
    tensors, model = stored(model, precision)
    return LevelsSample(library, tensors, num_targets=model.num_targets, threads=threads), model


def uniform(model, batch, samples=SAMPLES, seed=7):
    return noise(seed, batch, samples, len(model.levels))


def may_be_drawn(model):
    """For each level, True for the rows with a target below them."""
    alive = [model.row_targets < model.num_targets]
    for level in model.levels[:0:-1]:
        alive.insert(0, np.logical_or.reduceat(alive[0], level.offsets[:-1]))
    return alive


def draw(model, hidden, numbers):
    """Draw one target in float64; also return the distance of the numbers to the next draw."""
    row, distance = 0, 1.0
    for depth, alive in enumerate(may_be_drawn(model)):
        level = model.levels[depth]
        block = slice(level.offsets[row], level.offsets[row + 1])
        logits = level.weight[block].astype(np.float64) @ hidden + level.bias[block]
        logits = np.where(alive[block], logits, -np.inf)
        sums = np.cumsum(np.exp(logits - logits.max()))
        sums /= sums[-1]
        distance = min(distance, np.abs(sums[:-1] - numbers[depth]).min(initial=1.0))
        row = block.start + int(np.argmax(sums > numbers[depth]))
    return model.row_targets[row], distance


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_every_draw_is_what_the_noise_says(library, instruction_set, name, precision):
    kernel, model = kernel_of(library, build(name), precision)
    hidden, numbers = hidden_for(model, 3, 0.5), uniform(model, 3)
    target, log_prob = kernel({"hidden": hidden, "noise": numbers})
    for i, j in np.ndindex(3, SAMPLES):
        expected, distance = draw(model, hidden[i].astype(np.float64), numbers[i, j])
        assert target[i, j] == expected or distance < 1e-5
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_a_draw_has_the_same_bits_alone_in_a_batch_and_in_target_log_prob(library, name):
    kernel, model = kernel_of(library, build(name))
    hidden, numbers = hidden_for(model, 40), uniform(model, 40, 9)
    target, log_prob = kernel({"hidden": hidden, "noise": numbers})
    for i, j in np.ndindex(40, 9):
        alone = kernel({"hidden": hidden[i : i + 1], "noise": numbers[i : i + 1, j : j + 1]})
        assert alone[0][0, 0] == target[i, j]
        assert alone[1][0, 0] == log_prob[i, j]
    tensors, _ = stored(model)
    paths = LevelsTargetLogProb(library, tensors, num_targets=model.num_targets)
    pairs = {"row": np.repeat(np.arange(40), 9), "target": target.ravel()}
    np.testing.assert_array_equal(paths({"hidden": hidden, **pairs})[0], log_prob.ravel())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_draws_the_same(library, instruction_set, name, precision):
    kernel, model = kernel_of(library, build(name), precision)
    feeds = {"hidden": hidden_for(model, 10), "noise": uniform(model, 10)}
    here = kernel(feeds)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    for one, best in zip(here, kernel(feeds), strict=True):
        np.testing.assert_array_equal(one, best)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_any_number_of_threads_draws_the_same(library, count):
    model, threads = softmax([50], [301] * 50, hidden=200, spread=0.1), FreeThreads(count)
    feeds = {"hidden": hidden_for(model, 70), "noise": uniform(model, 70, 4)}
    kernel, _ = kernel_of(library, model, threads=threads)
    expected = kernel_of(library, model)[0](feeds)
    for one, alone in zip(kernel(feeds), expected, strict=True):
        np.testing.assert_array_equal(one, alone)
    assert threads.pointer[0] == count


@pytest.mark.parametrize("number", [0.0, 2**-25, LARGEST_NOISE])
@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_and_the_largest_noise_draw_targets(library, name, number):
    kernel, model = kernel_of(library, build(name))
    numbers = np.full((4, 2, len(model.levels)), number, np.float32)
    hidden = hidden_for(model, 4)
    target, log_prob = kernel({"hidden": hidden, "noise": numbers})
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)


def test_a_draw_is_a_target_even_if_padding_is_far_more_likely(library):
    model = softmax([5], [4] * 5, num_targets=9, padding="theano")
    kernel, model = kernel_of(library, model)
    hidden = with_logits_of(model, 40, 1e4)
    target, log_prob = kernel({"hidden": hidden, "noise": uniform(model, 40, 20)})
    full = reference.log_probs(model, hidden)
    expected = np.take_along_axis(full, target, axis=1)  # fails if a target is none
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6, atol=1e-2)


def test_numbers_that_overflow_are_not_finite(library):
    kernel, model = kernel_of(library, build("unequal blocks and padding, theano"))
    for value in (np.nan, 3e38):
        hidden = np.full((2, model.hidden_size), value, np.float32)
        target, log_prob = kernel({"hidden": hidden, "noise": uniform(model, 2)})
        assert not np.isfinite(log_prob).any()
        assert ((target >= 0) & (target < model.num_targets)).all()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_samples_have_no_results(library, shape):
    kernel, model = kernel_of(library, build("three levels"))
    numbers = np.zeros((*shape, 3), np.float32)
    target, log_prob = kernel({"hidden": hidden_for(model, shape[0]), "noise": numbers})
    assert target.shape == log_prob.shape == shape


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (np.zeros((2, 3, 2), np.float32), r"noise: expected float32 \[2, samples, 3\], got"),
        (np.zeros((3, 3, 3), np.float32), r"got float32 \[3, 3, 3\]"),
        (np.zeros((2, 3), np.float32), r"got float32 \[2, 3\]"),
        (np.zeros((2, 3, 3)), r"got float64 \[2, 3, 3\]"),
        (np.full((2, 3, 3), 1, np.float32), "expected valid sizes"),
        (np.full((2, 3, 3), -1e-9, np.float32), "expected valid sizes"),
        (np.full((2, 3, 3), np.nan, np.float32), "expected valid sizes"),
    ],
)
def test_bad_noise_is_refused(library, numbers, sentence):
    kernel, model = kernel_of(library, build("three levels"))
    with pytest.raises(NativeError, match=sentence):
        kernel({"hidden": hidden_for(model, 2), "noise": numbers})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("level0.alive", lambda t: t[:-1]),
        ("level1.alive", lambda t: t.astype(np.float64)),
        ("row_target", lambda t: t[:-1]),
        ("row_target", lambda t: t.astype(np.int32)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(library, name, change):
    tensors, model = stored(build("targets anywhere in unequal blocks, theano"))
    tensors[name] = change(tensors[name])
    with pytest.raises(NativeError, match=f"{name}: expected"):
        LevelsSample(library, tensors, num_targets=model.num_targets)


@pytest.mark.parametrize(
    ("name", "value"), [("row_target", 2**40), ("row_target", -1), ("level1.offsets", 2**40)]
)
def test_tensors_that_change_are_refused_when_used(library, name, value):
    tensors, model = stored(build("targets anywhere in unequal blocks, theano"))
    tensors[name] = tensors[name].copy()
    kernel = LevelsSample(library, tensors, num_targets=model.num_targets)
    tensors[name][1:] = value
    with pytest.raises(NativeError, match="expected indices that fit"):
        kernel({"hidden": hidden_for(model, 9), "noise": uniform(model, 9)})


def test_a_stop_flag_stops(library):
    kernel, model = kernel_of(library, build("more blocks than a tile"))
    feeds, stop = {"hidden": hidden_for(model, 5), "noise": uniform(model, 5)}, StopFlag()
    kernel(feeds, stop)
    stop.set(True)
    with pytest.raises(NativeError, match="stopped"):
        kernel(feeds, stop)
