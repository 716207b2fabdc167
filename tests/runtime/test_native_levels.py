"""Tests of the native kernel of a hierarchical softmax: right numbers, equal bits, bad input."""

import threading

import numpy as np
import pytest

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models import hierarchical_softmax as reference
from hsoftmax.runtime.native import NativeError, StopFlag
from tests.exporter.graphs.task_runner import TOLERANCE
from tests.exporter.graphs.test_hierarchical_softmax import (
    MODELS,
    hidden_for,
    softmax,
    with_logits_of,
)
from tests.runtime.kernels import LevelsTargetLogProb


def kernel_of(library, model, precision="fp32"):
    """The kernel over a model's stored tensors, and the model that they represent."""
    tensors = stored_tensors(model, precision)
    kernel = LevelsTargetLogProb(
        library,
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        num_targets=model.num_targets,
    )
    return kernel, from_tensors("HierarchicalSoftmax", tensors, attributes(model))


def build(name):
    params = dict(MODELS[name])
    return softmax(*params.pop("sizes"), **params)


def pairs_of(model, batch, pairs, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "row": rng.integers(0, batch, pairs),
        "target": rng.integers(0, model.num_targets, pairs),
    }


def one_by_one(kernel, hidden, row, target):
    zero = np.zeros(1, np.int64)
    results = [
        kernel({"hidden": hidden[r : r + 1], "row": zero, "target": t[None]})[0]
        for r, t in zip(row, target, strict=True)
    ]
    return np.concatenate(results)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_every_target_equals_the_reference(library, instruction_set, name, precision):
    kernel, model = kernel_of(library, build(name), precision)
    hidden = hidden_for(model, 3)
    row, target = np.divmod(np.arange(3 * model.num_targets)[::-1][:2000], model.num_targets)
    (actual,) = kernel({"hidden": hidden, "row": row, "target": target})
    expected = reference.log_probs(model, hidden)[row, target]
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("hidden_size", [1, 2, 7, 8, 9, 15, 16, 17, 40, 100])
@pytest.mark.parametrize("sizes", [[5], [4] * 5, [16] * 3, [17] * 3, [3, 1, 12, 33]])
def test_any_width_equals_the_reference(library, instruction_set, hidden_size, sizes):
    kernel, model = kernel_of(library, softmax([len(sizes)], sizes, hidden=hidden_size))
    hidden, pairs = hidden_for(model, 20), pairs_of(model, 20, 100)
    (actual,) = kernel({"hidden": hidden, **pairs})
    expected = reference.target_log_prob(model, hidden, pairs["row"], pairs["target"])
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("hidden_size", [3, 8, 9, 16, 70])
@pytest.mark.parametrize("sizes", [[5], [15] * 2, [17] * 3, [100] * 2, [33, 1, 12]])
def test_many_rows_of_a_block_have_the_bits_of_one(
    library, instruction_set, sizes, hidden_size, precision
):
    """Up to 64 hidden rows are multiplied together, from the ninth on in another order of loops."""
    model = softmax([len(sizes)], sizes, hidden=hidden_size)
    kernel, model = kernel_of(library, model, precision)
    hidden, pairs = hidden_for(model, 150), pairs_of(model, 150, 300)
    (together,) = kernel({"hidden": hidden, **pairs})
    np.testing.assert_array_equal(together, one_by_one(kernel, hidden, **pairs))
    expected = reference.target_log_prob(model, hidden, pairs["row"], pairs["target"])
    np.testing.assert_allclose(together, expected, **TOLERANCE)


@pytest.mark.parametrize("size", [100, 1e4])
@pytest.mark.parametrize("name", ["101 x 100 - 99", "three levels", "unequal blocks"])
def test_large_logits_are_finite_and_right(library, name, size):
    kernel, model = kernel_of(library, build(name))
    hidden, pairs = with_logits_of(model, 5, size), pairs_of(model, 5, 500)
    (actual,) = kernel({"hidden": hidden, **pairs})
    expected = reference.target_log_prob(model, hidden, pairs["row"], pairs["target"])
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * size)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", ["101 x 100 - 99", "three levels", "unequal blocks", "one level"])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(library, name, precision):
    kernel, model = kernel_of(library, build(name), precision)
    hidden, pairs = hidden_for(model, 60), pairs_of(model, 60, 700)
    together = kernel({"hidden": hidden, **pairs})[0]
    np.testing.assert_array_equal(together, one_by_one(kernel, hidden, **pairs), strict=True)
    for seed in range(3):
        some = np.random.default_rng(seed).permutation(700)[: 300 * (seed + 1)]
        part = {name: array[some] for name, array in pairs.items()}
        np.testing.assert_array_equal(kernel({"hidden": hidden, **part})[0], together[some])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_gives_the_same_bits(library, instruction_set, name, precision):
    kernel, model = kernel_of(library, build(name), precision)
    feeds = {"hidden": hidden_for(model, 30), **pairs_of(model, 30, 300)}
    (here,) = kernel(feeds)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    np.testing.assert_array_equal(here, kernel(feeds)[0])


def test_threads_share_a_kernel(library):
    kernel, model = kernel_of(library, build("101 x 100 - 99"))
    feeds = {"hidden": hidden_for(model, 50), **pairs_of(model, 50, 2000)}
    expected, got = kernel(feeds)[0], []
    threads = [threading.Thread(target=lambda: got.append(kernel(feeds)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    for one in got:
        np.testing.assert_array_equal(one, expected)


def test_no_pairs_have_no_results(library):
    kernel, model = kernel_of(library, build("one level"))
    empty = np.zeros(0, np.int64)
    assert kernel({"hidden": hidden_for(model, 2), "row": empty, "target": empty})[0].shape == (0,)


def test_numbers_that_overflow_are_not_finite(library):
    kernel, model = kernel_of(library, build("one level"))
    hidden = np.full((1, model.hidden_size), 3e38, np.float32)
    zero = np.zeros(1, np.int64)
    assert not np.isfinite(kernel({"hidden": hidden, "row": zero, "target": zero})[0]).any()
    hidden[0, 0] = np.nan
    assert np.isnan(kernel({"hidden": hidden, "row": zero, "target": zero})[0]).all()


HUGE = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"row": [5]}, "row: expected a row of the batch"),
        ({"row": [-1]}, "row: expected a row of the batch"),
        ({"row": [HUGE]}, "row: expected a row of the batch"),
        ({"target": [23]}, "target: expected a target of the bundle"),
        ({"target": [-1]}, "target: expected a target of the bundle"),
        ({"target": [HUGE]}, "target: expected a target of the bundle"),
        ({"target": [1, 2]}, r"target: expected int64 \[1\], got int64 \[2\]"),
        ({"row": [[1]]}, r"row: expected int64 \[any\], got int64 \[1, 1\]"),
        ({"hidden": np.zeros((5, 7), np.float32)}, r"hidden: expected float32 \[batch, 6\]"),
        ({"hidden": np.zeros((5, 6))}, r"got float64 \[5, 6\]"),
        ({"hidden": np.zeros((0, 6), np.float32)}, "row: expected a row of the batch"),
    ],
)
def test_bad_input_is_refused(library, change, sentence):
    kernel, model = kernel_of(library, build("one level"))
    feeds = {"hidden": hidden_for(model, 5), "row": [0], "target": [0]} | change
    feeds = {name: np.asarray(array) for name, array in feeds.items()}
    with pytest.raises(NativeError, match=sentence):
        kernel(feeds)


def test_arrays_that_are_not_contiguous_are_copied(library):
    kernel, model = kernel_of(library, build("unequal blocks"))
    hidden, pairs = hidden_for(model, 20), pairs_of(model, 20, 80)
    (expected,) = kernel({"hidden": hidden[::2].copy(), "row": pairs["row"] // 2,
                          "target": pairs["target"]})  # fmt: skip
    (actual,) = kernel({"hidden": hidden[::2], "row": pairs["row"] // 2,
                        "target": np.repeat(pairs["target"], 2)[::2]})  # fmt: skip
    np.testing.assert_array_equal(actual, expected)


def test_a_stop_flag_stops(library):
    kernel, model = kernel_of(library, build("more blocks than a tile"))
    feeds = {"hidden": hidden_for(model, 5), **pairs_of(model, 5, 100)}
    kernel(feeds, StopFlag())
    stop = StopFlag()
    stop.set(True)
    with pytest.raises(NativeError, match="stopped"):
        kernel(feeds, stop)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("level1.bias", lambda t: t[:-1]),
        ("level1.bias", lambda t: t.astype(np.float64)),
        ("level1.weight", lambda t: t[:-1]),
        ("level1.weight", lambda t: t.astype(np.float64)),
        ("level1.weight", lambda t: t.astype(np.int8)),
        ("level1.weight", lambda t: t[:, :-1]),
        ("level1.offsets", lambda t: t[::-1].copy()),
        ("level1.offsets", lambda t: t[:-1]),
        ("level1.offsets", lambda t: t + 1),
        ("level1.offsets", lambda t: t.astype(np.int32)),
        ("level0.bias", lambda t: t[:-1]),
        ("target_rows", lambda t: t[:-1]),
    ],
)
@pytest.mark.parametrize("sizes", [[13, 2, 20, 5], [10] * 4])
def test_tensors_that_do_not_fit_are_refused(library, name, change, sizes):
    model = softmax([4], sizes, num_targets=25, target_rows=np.arange(25))
    tensors = {n: np.ascontiguousarray(t) for n, t in stored_tensors(model, "fp32").items()}
    tensors[name] = change(tensors[name])
    with pytest.raises(NativeError, match="expected"):
        LevelsTargetLogProb(library, tensors, num_targets=25)


def test_target_rows_outside_of_the_level_are_refused_when_used(library):
    model = softmax([4], [10] * 4, num_targets=25, target_rows=np.arange(25))
    tensors = {n: np.ascontiguousarray(t) for n, t in stored_tensors(model, "fp32").items()}
    tensors["target_rows"] = tensors["target_rows"] + 40
    kernel = LevelsTargetLogProb(library, tensors, num_targets=25)
    with pytest.raises(NativeError, match="expected indices that fit"):
        kernel({"hidden": hidden_for(model, 1), "row": np.zeros(1, np.int64),
                "target": np.zeros(1, np.int64)})  # fmt: skip


def test_levels_that_do_not_fit_each_other_are_refused(library):
    model = softmax([4], [10] * 4)
    tensors = {n: np.ascontiguousarray(t) for n, t in stored_tensors(model, "fp32").items()}
    other = stored_tensors(softmax([5], [8] * 5), "fp32")
    tensors |= {n: np.ascontiguousarray(t) for n, t in other.items() if n.startswith("level0")}
    kernel = LevelsTargetLogProb(library, tensors, num_targets=40)
    zero = np.zeros(1, np.int64)
    with pytest.raises(NativeError, match="expected indices that fit"):
        kernel({"hidden": hidden_for(model, 1), "row": zero, "target": zero})
