"""Tests of the native kernel for top_k of a hierarchical softmax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models import hierarchical_softmax as reference
from hsoftmax.runtime.native import NativeError, StopFlag, load_library
from tests.exporter.graphs.task_runner import TOLERANCE
from tests.exporter.graphs.test_hierarchical_softmax import MODELS, hidden_for, softmax
from tests.runtime.kernels import LevelsTargetLogProb, LevelsTopK


def build(name):
    params = dict(MODELS[name])
    return softmax(*params.pop("sizes"), **params)


def stored(model, precision="fp32"):
    """The tensors of a model as a bundle has them, and the model that they represent."""
    tensors = stored_tensors(model, precision)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return contiguous, from_tensors("HierarchicalSoftmax", tensors, attributes(model))


def top_k(library, tensors, model, hidden, k, max_blocks=0, stop=None):
    kernel = LevelsTopK(library, tensors, num_targets=model.num_targets)
    feeds = {"hidden": hidden, "k": np.array([k]), "max_blocks": np.array([max_blocks])}
    return kernel(feeds, stop)


def assert_top_k(model, hidden, found, k, scale=1.0):
    log_prob, target, opened, exact = found
    full = reference.log_probs(model, hidden)
    tolerance = TOLERANCE | {"atol": TOLERANCE["atol"] * max(scale, 1.0)}
    np.testing.assert_allclose(log_prob, -np.sort(-full, axis=1)[:, :k], **tolerance)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **tolerance)
    assert all(len(set(row)) == k for row in target.tolist())
    assert (np.diff(log_prob, axis=1) <= 0).all()
    assert (np.diff(target, axis=1)[np.diff(log_prob, axis=1) == 0] > 0).all()
    assert exact.all()
    assert (opened <= model.levels[-1].num_blocks).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("k", [1, 5, 100, 10_001])
@pytest.mark.parametrize("name", MODELS)
def test_every_result_equals_the_reference(library, name, k, scale):
    tensors, model = stored(build(name))
    k = min(k, model.num_targets)
    hidden = hidden_for(model, 11) * np.float32(scale / max(1.0, model.hidden_size / 20))
    assert_top_k(model, hidden, top_k(library, tensors, model, hidden, k), k, scale)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", ["101 x 100 - 99, theano", "three levels", "unequal blocks"])
def test_every_precision_equals_the_reference(library, name, precision):
    tensors, model = stored(build(name), precision)
    hidden = hidden_for(model, 9)
    assert_top_k(model, hidden, top_k(library, tensors, model, hidden, 7), 7)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_levels_equal_the_reference(data):
    sizes, blocks = [], 1
    for _ in range(data.draw(st.integers(1, 3))):
        size = st.lists(st.integers(1, 6), min_size=blocks, max_size=blocks)
        equal = st.integers(1, 6).map(lambda size, blocks=blocks: [size] * blocks)
        sizes.append(data.draw(st.one_of(size, equal)))
        blocks = sum(sizes[-1])
    targets = data.draw(st.integers(1, blocks))
    padding = data.draw(st.sampled_from(["mask", "theano"]))
    model = softmax(*sizes, num_targets=targets, padding=padding)
    tensors, model = stored(model)
    hidden = hidden_for(model, 3, scale=data.draw(st.sampled_from([0.0, 1.0, 5.0])))
    k = data.draw(st.integers(1, targets))
    assert_top_k(model, hidden, top_k(load_library(), tensors, model, hidden, k), k)


@pytest.fixture(scope="module")
def many_blocks():
    return stored(softmax([400], [3] * 400, num_targets=1200))


def test_a_peaked_row_opens_few_blocks(library, many_blocks):
    tensors, model = many_blocks
    hidden = hidden_for(model, 20, scale=10.0)
    assert top_k(library, tensors, model, hidden, 3)[2].mean() < 20


@pytest.mark.parametrize("max_blocks", [1, 5, 100, 400, 1000])
def test_a_limit_of_blocks_is_kept_and_told(library, many_blocks, max_blocks):
    tensors, model = many_blocks
    hidden = hidden_for(model, 20, scale=0.1)
    log_prob, target, opened, exact = top_k(library, tensors, model, hidden, 2, max_blocks)
    assert (opened <= max_blocks).all()
    assert (opened[~exact] == max_blocks).all()
    assert exact.all() or max_blocks < 400
    assert not exact.all() or max_blocks > 5
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)
    best = -np.sort(-full, axis=1)[:, :2]
    np.testing.assert_allclose(log_prob[exact], best[exact], **TOLERANCE)


def test_a_row_with_a_limit_goes_on_until_it_has_k_targets(library, many_blocks):
    tensors, model = many_blocks
    opened = top_k(library, tensors, model, hidden_for(model, 5), 10, max_blocks=1)[2]
    assert (opened >= 4).all()


@pytest.mark.parametrize("scale", [0.1, 3.0])
@pytest.mark.parametrize("name", ["101 x 100 - 99", "three levels", "unequal blocks"])
def test_a_row_has_the_same_bits_alone_in_a_batch_and_in_both_tasks(library, name, scale):
    tensors, model = stored(build(name))
    hidden = hidden_for(model, 30, scale=scale)
    together = top_k(library, tensors, model, hidden, 5)
    for i in range(len(hidden)):
        alone = top_k(library, tensors, model, hidden[i : i + 1], 5)
        for one, all_rows in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_rows[i])
    kernel = LevelsTargetLogProb(library, tensors, num_targets=model.num_targets)
    pairs = {"row": np.repeat(np.arange(30), 5), "target": together[1].ravel()}
    (log_prob,) = kernel({"hidden": hidden, **pairs})
    np.testing.assert_array_equal(log_prob, together[0].ravel())


@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_gives_the_same_bits(library, instruction_set, name):
    tensors, model = stored(build(name))
    hidden, k = hidden_for(model, 10), min(7, model.num_targets)
    here = top_k(library, tensors, model, hidden, k)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    for one, best in zip(here, top_k(library, tensors, model, hidden, k), strict=True):
        np.testing.assert_array_equal(one, best)


def test_numbers_that_overflow_are_not_finite(library, many_blocks):
    tensors, model = many_blocks
    hidden = np.full((2, model.hidden_size), np.nan, np.float32)
    log_prob, target, _, _ = top_k(library, tensors, model, hidden, 3)
    assert np.isnan(log_prob).all()
    assert ((target >= 0) & (target < model.num_targets)).all()


@pytest.mark.parametrize(("k", "max_blocks"), [(0, 0), (1201, 0), (-1, 0), (2**62, 0), (1, -1)])
def test_bad_input_is_refused(library, many_blocks, k, max_blocks):
    tensors, model = many_blocks
    with pytest.raises(NativeError, match="expected valid sizes"):
        top_k(library, tensors, model, hidden_for(model, 2), k, max_blocks)


def test_offsets_that_change_are_refused(library):
    tensors, model = stored(build("unequal blocks"))
    kernel = LevelsTopK(library, tensors, num_targets=model.num_targets)
    tensors["level1.offsets"][2] = 2**40
    feeds = {"hidden": hidden_for(model, 2), "k": np.array([3]), "max_blocks": np.array([0])}
    with pytest.raises(NativeError, match="expected indices that fit"):
        kernel(feeds)


def test_a_stop_flag_stops(library, many_blocks):
    stop = StopFlag()
    stop.set(True)
    tensors, model = many_blocks
    with pytest.raises(NativeError, match="stopped"):
        top_k(library, tensors, model, hidden_for(model, 2), 3, stop=stop)
