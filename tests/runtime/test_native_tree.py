"""Tests of the native kernels of a binary tree: against the reference, equal bits, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsoftmax.exporter import PrecisionOptions, export_model, parse_destination
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import attributes, from_tensors
from hsoftmax.models import huffman_softmax as reference
from hsoftmax.runtime.native import NativeError, StopFlag, load_library
from hsoftmax.runtime.sessions import open_single_thread_session
from tests.exporter.graphs.task_runner import TOLERANCE
from tests.models.strategies import hidden_for
from tests.models.trees import huffman_softmaxes, random_huffman
from tests.runtime.kernels import TreeTargetLogProb, TreeTopK

MODELS = {
    "one target": {"num_targets": 1},
    "two targets": {"num_targets": 2},
    "a balanced tree": {"num_targets": 64},
    "a chain": {"num_targets": 40, "lean": 0.0},
    "paths of many steps": {"num_targets": 200, "lean": 0.0, "hidden_size": 17},
    "unused rows": {"num_targets": 300, "lean": 0.2, "unused": 5},
    "fastText's scores": {"num_targets": 90, "lean": 0.3, "compat": "fasttext"},
    "biases": {"num_targets": 70, "lean": 0.3, "unused": 1, "biases": True},
    "many targets": {"num_targets": 5000, "lean": 0.3, "hidden_size": 33},
}


def build(name):
    return random_huffman(**({"hidden_size": 6} | MODELS[name]))


def tensors_of(model, precision="fp32"):
    return {n: np.ascontiguousarray(t) for n, t in stored_tensors(model, precision).items()}


def path_kernel(library, model, precision="fp32"):
    return TreeTargetLogProb(library, tensors_of(model, precision), model.compat)


def top_k(library, model, hidden, k, max_blocks=0, precision="fp32"):
    kernel = TreeTopK(library, tensors_of(model, precision), model.compat)
    return kernel({"hidden": hidden, "k": np.array([k]), "max_blocks": np.array([max_blocks])})


def assert_top_k(model, hidden, found, k, scale=1.0):
    log_prob, target, opened, exact = found
    full = reference.log_probs(model, hidden)
    tolerance = TOLERANCE | {"atol": TOLERANCE["atol"] * scale}
    np.testing.assert_allclose(log_prob, -np.sort(-full, axis=1)[:, :k], **tolerance)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **tolerance)
    assert all(len(set(row)) == k for row in target.tolist())
    assert (np.diff(log_prob, axis=1) <= 0).all()
    assert (np.diff(target, axis=1)[np.diff(log_prob, axis=1) == 0] > 0).all()
    assert exact.all()
    assert (opened <= model.num_nodes).all()


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("name", MODELS)
def test_every_target_equals_the_reference(library, instruction_set, name, scale):
    model = build(name)
    hidden = hidden_for(model, 3, scale=scale)
    row, target = np.divmod(np.arange(3 * model.num_targets)[::-1], model.num_targets)
    feeds = {"hidden": hidden, "row": row, "target": target}
    (actual,) = path_kernel(library, model)(feeds)
    expected = reference.log_probs(model, hidden)[row, target]
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-5 * scale)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("k", [1, 3, 40, 5000])
@pytest.mark.parametrize("name", MODELS)
def test_top_k_equals_the_reference(library, name, k, scale):
    model = build(name)
    k = min(k, model.num_targets)
    hidden = hidden_for(model, 3) * np.float32(scale)
    assert_top_k(model, hidden, top_k(library, model, hidden, k), k, max(scale, 1.0))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_in_fewer_bits_are_read_where_they_lie(library, instruction_set, name, precision):
    """The results are those of the stored weights, with equal bits in both tasks and alone."""
    trained = build(name)
    tensors = stored_tensors(trained, precision)
    model = from_tensors("HuffmanSoftmax", tensors, attributes(trained))
    hidden, k = hidden_for(model, 20), min(5, model.num_targets)
    found = top_k(library, trained, hidden, k, precision=precision)
    assert_top_k(model, hidden, found, k)
    kernel = path_kernel(library, trained, precision)
    pairs = {"row": np.repeat(np.arange(20), k), "target": found[1].ravel()}
    (log_prob,) = kernel({"hidden": hidden, **pairs})
    np.testing.assert_array_equal(log_prob, found[0].ravel())
    zero = np.zeros(1, np.int64)
    for i in range(0, 20 * k, 7):
        one = {"hidden": hidden[[pairs["row"][i]]], "row": zero, "target": pairs["target"][[i]]}
        assert kernel(one)[0][0] == log_prob[i]
    library.functions.hsoftmax_use(library.instruction_set.encode())
    np.testing.assert_array_equal(kernel({"hidden": hidden, **pairs})[0], log_prob)
    best = top_k(library, trained, hidden, k, precision=precision)
    for here, other in zip(found, best, strict=True):
        np.testing.assert_array_equal(here, other)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_bundle_in_fewer_bits_has_the_results_of_its_graphs(library, tmp_path, precision):
    model = build("biases")
    to, options = parse_destination(tmp_path / "words"), PrecisionOptions(precision)
    exported = export_model(model, to, precision_options=options)
    hidden, limits = hidden_for(model, 9), {"k": np.array([4]), "max_blocks": np.array([0])}
    pairs = {"row": np.arange(50) % 9, "target": np.arange(50)}
    for task, inputs in {"target_log_prob": pairs, "top_k": limits}.items():
        by_kernel, by_graph = (
            open_single_thread_session(exported, task, native=native) for native in (True, False)
        )
        assert (by_kernel.kernel is None, by_graph.kernel is None) == (False, True)
        actual, expected = (
            session.run({"hidden": hidden, **inputs})[0] for session in (by_kernel, by_graph)
        )
        np.testing.assert_allclose(actual, expected, **TOLERANCE)


@given(huffman_softmaxes(), st.data())
@settings(max_examples=100, deadline=None)
def test_any_tree_equals_the_reference(model, data):
    library = load_library()
    k = data.draw(st.integers(1, model.num_targets))
    hidden = hidden_for(model, 2, scale=data.draw(st.sampled_from([0.0, 1.0, 30.0])))
    assert_top_k(model, hidden, top_k(library, model, hidden, k), k, 30.0)


def test_a_peaked_row_opens_few_nodes(library):
    model = build("many targets")
    hidden = hidden_for(model, 20, scale=20.0)
    opened = top_k(library, model, hidden, 1)[2]
    assert opened.mean() < model.num_nodes / 50


def test_a_limit_of_nodes_is_kept_and_told(library):
    model = build("many targets")
    hidden = hidden_for(model, 20, scale=0.1)
    log_prob, target, opened, exact = top_k(library, model, hidden, 5, max_blocks=300)
    assert (opened <= 300).all()
    assert (opened[~exact] == 300).all()
    assert 0 < exact.sum() < 20
    full = reference.log_probs(model, hidden)
    np.testing.assert_allclose(log_prob, np.take_along_axis(full, target, axis=1), **TOLERANCE)
    assert top_k(library, model, hidden, 5, max_blocks=1)[2].max() > 1  # until it has k targets


@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_the_same_bits_alone_in_a_batch_and_in_both_tasks(library, name):
    model = build(name)
    hidden, k = hidden_for(model, 30), min(5, model.num_targets)
    together = top_k(library, model, hidden, k)
    for i in range(len(hidden)):
        for one, all_rows in zip(
            top_k(library, model, hidden[i : i + 1], k), together, strict=True
        ):
            np.testing.assert_array_equal(one[0], all_rows[i])
    pairs = {"row": np.repeat(np.arange(30), k), "target": together[1].ravel()}
    (log_prob,) = path_kernel(library, model)({"hidden": hidden, **pairs})
    np.testing.assert_array_equal(log_prob, together[0].ravel())


@pytest.mark.parametrize("name", MODELS)
def test_a_pair_has_the_same_bits_alone_and_in_any_batch(library, name):
    model, rng = build(name), np.random.default_rng(0)
    kernel, hidden = path_kernel(library, model), hidden_for(model, 30, scale=3.0)
    row, target = rng.integers(0, 30, 300), rng.integers(0, model.num_targets, 300)
    (together,) = kernel({"hidden": hidden, "row": row, "target": target})
    (shuffled,) = kernel({"hidden": hidden, "row": row[::-1], "target": target[::-1]})
    np.testing.assert_array_equal(shuffled[::-1], together)
    for i in range(300):
        pair = {"row": np.zeros(1, np.int64), "target": target[i : i + 1]}
        (alone,) = kernel({"hidden": hidden[row[i]][None], **pair})
        np.testing.assert_array_equal(alone[0], together[i])


def test_log_sigmoids_are_as_exact_as_float32_allows(library, instruction_set):
    model = build("two targets")
    logits = np.concatenate([np.linspace(-90, 90, 9001), np.linspace(-1, 1, 4001) ** 3])
    weight = np.zeros((1, 6), np.float32)
    weight[0, 0] = 1
    tensors = tensors_of(model) | {"syn1": weight}
    tensors.pop("bias", None)
    hidden = np.zeros((len(logits), 6), np.float32)
    hidden[:, 0] = logits
    row, zero = np.arange(len(logits)), np.zeros(len(logits), np.int64)
    kernel = TreeTargetLogProb(library, tensors, "exact")
    (actual,) = kernel({"hidden": hidden, "row": row, "target": zero})
    exact = -np.logaddexp(0.0, -tensors["sign"][0, 0] * hidden[:, 0].astype(np.float64))
    np.testing.assert_allclose(actual, exact, rtol=4e-7, atol=1e-37)


@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_gives_a_path_the_same_bits(library, instruction_set, name):
    model = build(name)
    hidden = hidden_for(model, 3, scale=3.0)
    row, target = np.divmod(np.arange(3 * model.num_targets), model.num_targets)
    feeds = {"hidden": hidden, "row": row, "target": target}
    kernel = path_kernel(library, model)
    (here,) = kernel(feeds)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    np.testing.assert_array_equal(here, kernel(feeds)[0])


@pytest.mark.parametrize("name", MODELS)
def test_every_instruction_set_gives_the_same_bits(library, instruction_set, name):
    model = build(name)
    hidden, k = hidden_for(model, 10), min(7, model.num_targets)
    here = top_k(library, model, hidden, k)
    library.functions.hsoftmax_use(library.instruction_set.encode())
    for one, best in zip(here, top_k(library, model, hidden, k), strict=True):
        np.testing.assert_array_equal(one, best)


def test_numbers_that_overflow_are_not_finite(library):
    model = build("a balanced tree")
    hidden = np.full((2, 6), np.nan, np.float32)
    log_prob, target, _, _ = top_k(library, model, hidden, 3)
    assert np.isnan(log_prob).all()
    assert ((target >= 0) & (target < 64)).all()
    zero = np.zeros(1, np.int64)
    feeds = {"hidden": hidden, "row": zero, "target": zero}
    assert np.isnan(path_kernel(library, model)(feeds)[0]).all()


@pytest.mark.parametrize(
    ("k", "max_blocks", "hidden"),
    [
        (0, 0, (2, 6)),
        (65, 0, (2, 6)),
        (-1, 0, (2, 6)),
        (np.iinfo(np.int64).max, 0, (2, 6)),
        (1, -1, (2, 6)),
        (1, 0, (2, 5)),
        (1, 0, (6,)),
    ],
)
def test_bad_input_of_top_k_is_refused(library, k, max_blocks, hidden):
    with pytest.raises(NativeError, match="expected"):
        top_k(library, build("a balanced tree"), np.zeros(hidden, np.float32), k, max_blocks)


@pytest.mark.parametrize(("row", "target"), [(3, 0), (-1, 0), (0, 64), (0, -1)])
def test_bad_pairs_are_refused(library, row, target):
    model = build("a balanced tree")
    feeds = {"hidden": hidden_for(model, 3), "row": np.array([row]), "target": np.array([target])}
    with pytest.raises(NativeError, match="expected a"):
        path_kernel(library, model)(feeds)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("children", lambda t: t[:-1]),
        ("children", lambda t: t.astype(np.int64)),
        ("path", lambda t: t.astype(np.int64)),
        ("sign", lambda t: t[:-1]),
        ("bias", lambda t: t[:-1]),
        ("syn1", lambda t: t.astype(np.float64)),
        ("syn1", lambda t: t[:, :-1]),
        ("syn1.scale", lambda t: t[:-1]),
        ("syn1.scale", lambda t: t.astype(np.float64)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(library, name, change):
    tensors = tensors_of(build("biases"), "int8" if name == "syn1.scale" else "fp32")
    tensors[name] = change(tensors[name])
    with pytest.raises(NativeError, match=f"{name}: expected"):
        TreeTopK(library, tensors, "exact")


def test_an_int8_weight_without_scales_is_refused(library):
    tensors = tensors_of(build("biases"), "int8")
    del tensors["syn1.scale"]
    with pytest.raises(NativeError, match=r"syn1\.scale: expected one for an int8 weight"):
        TreeTopK(library, tensors, "exact")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("children", np.iinfo(np.int32).min),  # no child, a leaf beyond the last
        ("children", np.iinfo(np.int32).max),  # a node beyond the last
        ("children", "root"),  # a loop
        ("path", -1),
        ("path", np.iinfo(np.int32).max),
    ],
)
def test_a_tree_that_lies_is_refused_when_used(library, name, value):
    tensors = tensors_of(build("a balanced tree"))
    tensors[name] = tensors[name].copy()
    tensors[name][:] = tensors["path"][0, 0] if value == "root" else value
    hidden, zero = np.zeros((1, 6), np.float32), np.zeros(1, np.int64)
    with pytest.raises(NativeError, match="expected indices that fit"):
        TreeTopK(library, tensors, "exact")(
            {"hidden": hidden, "k": np.array([3]), "max_blocks": zero}
        )
    if name == "path":
        with pytest.raises(NativeError, match="expected indices that fit"):
            TreeTargetLogProb(library, tensors, "exact")(
                {"hidden": hidden, "row": zero, "target": zero}
            )


def test_a_stop_flag_stops(library):
    model = build("a balanced tree")
    kernel = TreeTopK(library, tensors_of(model), model.compat)
    feeds = {"hidden": hidden_for(model, 3), "k": np.array([2]), "max_blocks": np.array([0])}
    kernel(feeds, StopFlag())
    stop = StopFlag()
    stop.set(True)
    with pytest.raises(NativeError, match="stopped"):
        kernel(feeds, stop)
