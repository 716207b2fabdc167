"""Tests of the native kernels of an adaptive softmax: right numbers, equal bits, bad input."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsoftmax.exporter import PrecisionOptions, export_model, parse_destination
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import adaptive_softmax as reference
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models.adaptive_softmax import build, build_projected
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.native import FreeThreads, NativeError, StopFlag, load_library
from hsoftmax.runtime.sessions import open_single_thread_session
from tests.exporter.graphs.test_adaptive_softmax import MODELS as SMALL_MODELS
from tests.exporter.graphs.test_adaptive_softmax import head_selecting_model
from tests.models.adaptive import adaptive, adaptive_softmaxes
from tests.models.strategies import hidden_for
from tests.runtime.kernels import AdaptiveSample, AdaptiveTargetLogProb, AdaptiveTopK

MODELS = SMALL_MODELS | {
    "layers of several tiles": {
        "shortlist": 300, "sizes": (500, 1111), "widths": (100, 33), "hidden": 130
    },
    "a large tail with biases": {
        "shortlist": 17, "sizes": (4000, 1), "widths": (None, 5), "head_bias": True,
        "tail_bias": True, "hidden": 65,
    },
}  # fmt: skip
KERNELS = [AdaptiveTargetLogProb, AdaptiveTopK, AdaptiveSample]


def tensors_of(model, precision="fp32"):
    return {n: np.ascontiguousarray(t) for n, t in stored_tensors(model, precision).items()}


def path_kernel(library, model):
    return AdaptiveTargetLogProb(library, tensors_of(model), model.cutoffs)


def top_k(library, model, hidden, k, max_blocks=0, stop=None):
    kernel = AdaptiveTopK(library, tensors_of(model), model.cutoffs)
    feeds = {"hidden": hidden, "k": np.array([k]), "max_blocks": np.array([max_blocks])}
    return kernel(feeds, stop)


def pairs_of(model, batch, pairs, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "row": rng.integers(0, batch, pairs),
        "target": rng.integers(0, model.num_targets, pairs),
    }


def tolerance_for(model, hidden):
    return {"rtol": 1e-6, "atol": max(1e-5, 1e-6 * reference.largest_logit(model, hidden))}


def assert_top_k(model, hidden, found, k):
    log_prob, target, opened, exact = found
    full, near = reference.log_probs(model, hidden), tolerance_for(model, hidden)
    np.testing.assert_allclose(log_prob, -np.sort(-full, axis=1)[:, :k], **near)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **near)
    assert all(len(set(row)) == k for row in target.tolist())
    assert (np.diff(log_prob, axis=1) <= 0).all()
    assert (np.diff(target, axis=1)[np.diff(log_prob, axis=1) == 0] > 0).all()
    assert exact.all()
    assert (opened <= len(model.tails)).all()


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("name", MODELS)
def test_every_target_equals_the_reference(library, instruction_set, name, scale):
    model = adaptive(**MODELS[name])
    hidden = hidden_for(model, 3, scale=scale / np.sqrt(model.hidden_size))
    row, target = np.divmod(np.arange(3 * model.num_targets)[::-1], model.num_targets)
    (actual,) = path_kernel(library, model)({"hidden": hidden, "row": row, "target": target})
    expected = reference.log_probs(model, hidden)[row, target]
    np.testing.assert_allclose(actual, expected, **tolerance_for(model, hidden))


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8, 9, 127, 128, 129, 300])
def test_any_number_of_rows_equals_the_reference(library, batch):
    model = adaptive(**MODELS["layers of several tiles"])
    hidden, pairs = hidden_for(model, batch, scale=0.1), pairs_of(model, batch, 2 * batch)
    (actual,) = path_kernel(library, model)({"hidden": hidden, **pairs})
    expected = reference.log_probs(model, hidden)[pairs["row"], pairs["target"]]
    np.testing.assert_allclose(actual, expected, **tolerance_for(model, hidden))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", np.float16), ("bf16", np.uint16), ("int8", np.int8)]
)
@pytest.mark.parametrize("name", MODELS)
def test_weights_in_fewer_bits_are_read_where_they_lie(
    library, instruction_set, name, precision, dtype
):
    trained = adaptive(**MODELS[name])
    tensors = tensors_of(trained, precision)
    model = from_tensors("AdaptiveSoftmax", tensors, attributes(trained))
    assert dtype in [tensor.dtype for tensor in tensors.values()]
    hidden, pairs = hidden_for(model, 20, scale=0.3), pairs_of(model, 20, 300)
    kernel = AdaptiveTargetLogProb(library, tensors, model.cutoffs)
    (together,) = kernel({"hidden": hidden, **pairs})
    expected = reference.log_probs(model, hidden)[pairs["row"], pairs["target"]]
    np.testing.assert_allclose(together, expected, **tolerance_for(model, hidden))
    zero = np.zeros(1, np.int64)
    for i in range(0, 300, 7):
        one = {"hidden": hidden[[pairs["row"][i]]], "row": zero, "target": pairs["target"][[i]]}
        assert kernel(one)[0][0] == together[i]
    feeds = {"hidden": hidden, "k": np.array([5]), "max_blocks": np.array([0])}
    found = AdaptiveTopK(library, tensors, model.cutoffs)(feeds)
    assert_top_k(model, hidden, found, 5)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    np.testing.assert_array_equal(kernel({"hidden": hidden, **pairs})[0], together)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_bundle_is_computed_natively_from_its_mapped_weights(library, tmp_path, precision):
    model = adaptive(**MODELS["layers of several tiles"])
    options = PrecisionOptions(precision)
    to = parse_destination(tmp_path / "words")
    exported = export_model(model, to, precision_options=options)
    hidden, pairs = hidden_for(model, 9, scale=0.1), pairs_of(model, 9, 50)
    limits = {"k": np.array([4]), "max_blocks": np.array([0])}
    feeds = {"target_log_prob": pairs, "top_k": limits}
    for task, inputs in feeds.items():
        by_kernel, by_graph = (
            open_single_thread_session(exported, task, native=native) for native in (True, False)
        )
        assert (by_kernel.kernel is None, by_graph.kernel is None) == (False, True)
        actual, expected = (
            session.run({"hidden": hidden, **inputs})[0] for session in (by_kernel, by_graph)
        )
        np.testing.assert_allclose(actual, expected, **tolerance_for(model, hidden))


@pytest.mark.parametrize("scale", [0.0, 0.3, 20.0])
@pytest.mark.parametrize("k", [1, 3, 40, 5000])
@pytest.mark.parametrize("name", MODELS)
def test_top_k_equals_the_reference(library, instruction_set, name, k, scale):
    model = adaptive(**MODELS[name])
    k = min(k, model.num_targets)
    hidden = hidden_for(model, 5, scale=scale / np.sqrt(model.hidden_size))
    assert_top_k(model, hidden, top_k(library, model, hidden, k), k)


@given(adaptive_softmaxes(), st.data())
@settings(max_examples=100, deadline=None)
def test_any_model_equals_the_reference(model, data):
    library = load_library()
    k = data.draw(st.integers(1, model.num_targets))
    hidden = hidden_for(model, 2, scale=data.draw(st.sampled_from([0.0, 1.0, 30.0])))
    assert_top_k(model, hidden, top_k(library, model, hidden, k), k)
    pairs = pairs_of(model, 2, 20)
    (actual,) = path_kernel(library, model)({"hidden": hidden, **pairs})
    expected = reference.log_probs(model, hidden)[pairs["row"], pairs["target"]]
    np.testing.assert_allclose(actual, expected, **tolerance_for(model, hidden))


@pytest.mark.parametrize("size", [100, 1e4])
def test_large_logits_are_finite_and_right(library, size):
    model = adaptive(**MODELS["layers of several tiles"])
    hidden, pairs = hidden_for(model, 5), pairs_of(model, 5, 500)
    hidden *= np.float32(size / reference.largest_logit(model, hidden))
    (actual,) = path_kernel(library, model)({"hidden": hidden, **pairs})
    expected = reference.log_probs(model, hidden)[pairs["row"], pairs["target"]]
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * size)


@pytest.mark.parametrize("scale", [0.1, 3.0])
@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_the_same_bits_alone_in_any_batch_and_in_both_tasks(library, name, scale):
    model = adaptive(**MODELS[name])
    hidden, k = hidden_for(model, 140, scale=scale), min(5, model.num_targets)
    together = top_k(library, model, hidden, k)
    for i in range(len(hidden)):
        alone = top_k(library, model, hidden[i : i + 1], k)
        for one, all_rows in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_rows[i])
    kernel = path_kernel(library, model)
    pairs = {"row": np.repeat(np.arange(140), k), "target": together[1].ravel()}
    np.testing.assert_array_equal(
        kernel({"hidden": hidden, **pairs})[0], together[0].ravel(), strict=True
    )
    for seed in range(3):
        some = np.random.default_rng(seed).permutation(140 * k)[: 20 * (seed + 1)]
        part = {name: array[some] for name, array in pairs.items()}
        (log_prob,) = kernel({"hidden": hidden, **part})
        np.testing.assert_array_equal(log_prob, together[0].ravel()[some])


@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_gives_the_same_bits(library, instruction_set, name):
    model = adaptive(**MODELS[name])
    hidden, k = hidden_for(model, 30), min(7, model.num_targets)
    kernel, pairs = path_kernel(library, model), pairs_of(model, 30, 300)
    here = [*top_k(library, model, hidden, k), *kernel({"hidden": hidden, **pairs})]
    library.functions.hsoftmax_use(library.instruction_set.encode())
    best = [*top_k(library, model, hidden, k), *kernel({"hidden": hidden, **pairs})]
    for one, other in zip(here, best, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_share_a_kernel(library):
    model = adaptive(**MODELS["layers of several tiles"])
    kernel = path_kernel(library, model)
    feeds = {"hidden": hidden_for(model, 50), **pairs_of(model, 50, 500)}
    expected, got = kernel(feeds)[0], []
    threads = [threading.Thread(target=lambda: got.append(kernel(feeds)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    for one in got:
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [*((kernel, "fp32") for kernel in KERNELS), (AdaptiveTargetLogProb, "int8")],
)
def test_any_number_of_threads_gives_the_same_bits(library, kernel, precision):
    """Head and tail are large enough to be split."""
    model = adaptive(9000, (12_001, 500), widths=(300, None), hidden=280)
    tensors = tensors_of(model, precision)
    alone = kernel(library, tensors, model.cutoffs)
    for batch in (1, 7, 150):
        feeds = {"hidden": hidden_for(model, batch, scale=0.02), "k": np.array([20])}
        feeds |= {"max_blocks": np.array([0]), **pairs_of(model, batch, 2 * batch)}
        feeds["noise"] = noise(0, batch, 2, 2)
        expected = alone(feeds)
        for count in (0, 1, 2, 3, 8):
            threads = FreeThreads(count)
            actual = kernel(library, tensors, model.cutoffs, threads)(feeds)
            for one, other in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(one, other)
            assert threads.pointer[0] == count


def test_a_tail_is_opened_only_where_it_can_matter(library):
    model = head_selecting_model(4, (5, 6))
    hidden = np.array(
        [
            [9, 8, 7, 6, 0, 0],  # a frequent target
            [0, 0, 0, 0, 9, 0],  # the first tail
            [0, 0, 0, 0, 0, 9],  # the second one, so the first is never looked at
            [5, 5, 5, 5, 5.1, 5.2],  # both might hold the best, neither does
        ],
        dtype=np.float32,
    )
    log_prob, target, opened, exact = top_k(library, model, hidden, 1)
    assert target[:, 0].tolist() == [0, 4, 9, 0]
    assert opened.tolist() == [0, 1, 1, 2]
    assert exact.all()
    np.testing.assert_allclose(log_prob, reference.top_k(model, hidden, 1)[0], atol=1e-6)


def test_a_limited_result_is_exact_where_it_says_so(library):
    model = head_selecting_model(4, (5, 6))
    hidden = np.array([[9, 0, 0, 0, 0, 0], [0, 0, 0, 0, 4, 4.1]], dtype=np.float32)
    _, _, opened, exact = top_k(library, model, hidden, 2, max_blocks=1)
    assert opened.tolist() == [1, 1]  # the second best of row 0 is tied with what a tail may hold
    assert exact.tolist() == [False, False]
    expected = reference.top_k(model, hidden, 2)
    for unlimited in (0, 2, 5):
        _, target, opened, exact = top_k(library, model, hidden, 2, max_blocks=unlimited)
        assert target.tolist() == expected[1].tolist()
        assert (opened.tolist(), exact.all()) == ([2, 2], True)


def test_a_row_with_a_limit_goes_on_until_it_has_k_targets(library):
    model, hidden = head_selecting_model(2, (3, 4)), np.zeros((1, 4), dtype=np.float32)
    for k, tails, proven in [(4, 1, False), (7, 2, True)]:
        log_prob, _, opened, exact = top_k(library, model, hidden, k, max_blocks=1)
        assert (opened.tolist(), exact.tolist()) == ([tails], [proven])
        assert np.isfinite(log_prob).all()


def test_equal_probabilities_go_to_the_lower_target(library):
    hidden = np.array([[-9, -9, -9, 1, 1], [-9, -9, -9, 1, 1.5]], dtype=np.float32)
    _, target, _, _ = top_k(library, head_selecting_model(3, (4, 4)), hidden, 8)
    assert target.tolist() == [[3, 4, 5, 6, 7, 8, 9, 10], [7, 8, 9, 10, 3, 4, 5, 6]]


def test_ties_of_a_large_tail_go_to_the_lower_target(library):
    layers = [build_projected("head", np.eye(3)), build_projected("tail", np.zeros((1000, 3)))]
    hidden = np.array([[0, 0, 9]], dtype=np.float32)
    _, target, _, _ = top_k(library, build(layers[0], layers[1:]), hidden, 20)
    assert target[0].tolist() == list(range(2, 22))


def test_no_rows_and_no_pairs_have_no_results(library):
    model, empty = adaptive(), np.zeros(0, np.int64)
    feeds = {"hidden": hidden_for(model, 2), "row": empty, "target": empty}
    assert path_kernel(library, model)(feeds)[0].shape == (0,)
    shapes = [array.shape for array in top_k(library, model, hidden_for(model, 0), 3)]
    assert shapes == [(0, 3), (0, 3), (0,), (0,)]


def test_numbers_that_overflow_are_not_finite(library):
    model, zero = adaptive(), np.zeros(1, np.int64)
    for value in (np.nan, np.inf):
        hidden = np.full((2, 6), value, np.float32)
        log_prob, target, _, _ = top_k(library, model, hidden, 3)
        assert np.isnan(log_prob).all()
        assert ((target >= 0) & (target < model.num_targets)).all()
        feeds = {"hidden": hidden, "row": zero, "target": zero}
        assert np.isnan(path_kernel(library, model)(feeds)[0]).all()


HUGE = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"row": [5]}, "row: expected a row of the batch"),
        ({"row": [-1]}, "row: expected a row of the batch"),
        ({"row": [HUGE]}, "row: expected a row of the batch"),
        ({"target": [12]}, "target: expected a target of the bundle"),
        ({"target": [-1]}, "target: expected a target of the bundle"),
        ({"target": [HUGE]}, "target: expected a target of the bundle"),
        ({"target": [1, 2]}, r"target: expected int64 \[1\], got int64 \[2\]"),
        ({"hidden": np.zeros((5, 7), np.float32)}, r"hidden: expected float32 \[batch, 6\]"),
        ({"hidden": np.zeros((5, 6))}, r"got float64 \[5, 6\]"),
        ({"hidden": np.zeros((0, 6), np.float32)}, "row: expected a row of the batch"),
    ],
)
def test_bad_pairs_are_refused(library, change, sentence):
    model = adaptive(**MODELS["one tail"])
    feeds = {"hidden": hidden_for(model, 5), "row": [0], "target": [0]} | change
    feeds = {name: np.asarray(array) for name, array in feeds.items()}
    with pytest.raises(NativeError, match=sentence):
        path_kernel(library, model)(feeds)


@pytest.mark.parametrize(
    ("k", "max_blocks", "hidden"),
    [
        (0, 0, (2, 6)),
        (13, 0, (2, 6)),
        (-1, 0, (2, 6)),
        (HUGE, 0, (2, 6)),
        (1, -1, (2, 6)),
        (1, 0, (2, 5)),
        (1, 0, (6,)),
    ],
)
def test_bad_input_of_top_k_is_refused(library, k, max_blocks, hidden):
    model = adaptive(**MODELS["one tail"])
    with pytest.raises(NativeError, match="expected"):
        top_k(library, model, np.zeros(hidden, np.float32), k, max_blocks)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("head.weight", lambda t: t[:, :-1]),
        ("head.weight", lambda t: t.astype(np.float64)),
        ("head.weight", np.asfortranarray),
        ("head.projection", lambda t: t[0]),
        ("tail1.weight", np.ravel),
        ("head.bias", lambda t: t[:-1]),
        ("tail0.weight", lambda t: t[:, :-1]),
        ("tail0.projection", lambda t: t[:-1]),
        ("tail0.projection", lambda t: t[:, :-1]),
        ("tail0.projection", lambda t: t.astype(np.float64)),
        ("tail1.bias", lambda t: t.astype(np.int64)),
        ("tail0.scale", lambda t: t[:-1]),
        ("head.scale", lambda t: t.astype(np.float64)),
        ("head.scale", None),
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_tensors_that_do_not_fit_are_refused(library, kernel, name, change):
    model = adaptive(5, (7, 9), widths=(3, 2), head_width=4, head_bias=True, tail_bias=True)
    tensors = tensors_of(model, "int8" if name.endswith("scale") else "fp32")
    tensors |= {name: change(tensors[name])} if change else {}
    if change is None:
        del tensors[name]
    with pytest.raises(NativeError, match=f"{name.split('.')[0]}.*: expected"):
        kernel(library, tensors, model.cutoffs)


@pytest.mark.parametrize("cutoffs", [[5], [5, 13], [4, 12], [0, 12], [-1, 2**62]])
@pytest.mark.parametrize("kernel", KERNELS)
def test_cutoffs_that_lie_are_refused(library, kernel, cutoffs):
    with pytest.raises(NativeError, match=r"cutoffs: expected \["):
        kernel(library, tensors_of(adaptive(5, (7, 9))), cutoffs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_model_without_tails_is_refused(library, kernel):
    with pytest.raises(NativeError, match=r"cutoffs: expected \[3\]"):
        kernel(library, {"head.weight": np.zeros((3, 2), np.float32)}, [])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_model_without_a_shortlist_is_refused(library, kernel):
    names = ["head", "tail0", "tail1", "tail2"]
    tensors = {f"{name}.weight": np.zeros((3, 2), np.float32) for name in names}
    feeds = {name: np.array([1]) for name in ("row", "target", "k", "max_blocks")}
    feeds["noise"] = noise(0, 2, 1, 2)
    with pytest.raises(NativeError, match="expected indices that fit"):
        kernel(library, tensors, [0, 3, 6])({"hidden": np.zeros((2, 2), np.float32), **feeds})


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stop_flag_stops(library, kernel):
    model = adaptive(**MODELS["layers of several tiles"])
    feeds = {"hidden": hidden_for(model, 3), "k": np.array([2]), "max_blocks": np.array([0])}
    feeds |= {"noise": noise(0, 3, 4, 2), **pairs_of(model, 3, 5)}
    run = kernel(library, tensors_of(model), model.cutoffs)
    run(feeds, StopFlag())
    stop = StopFlag()
    stop.set(True)
    with pytest.raises(NativeError, match="stopped"):
        run(feeds, stop)
