"""Tests of stored precisions: the tensors, their values, and the effect on a real model."""

from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle, models
from hsoftmax.exporter import (
    ExportError,
    PrecisionOptions,
    SourceOptions,
    export_file,
    export_model,
    parse_destination,
)
from hsoftmax.exporter.storage.layout import transpose_equal_blocks
from hsoftmax.exporter.storage.precision import convert_precision
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.models import from_theano, hierarchical_softmax
from hsoftmax.models.storage.tensors import model_tensors
from hsoftmax.runtime.sessions import open_session
from tests.exporter.conftest import theano_arrays
from tests.models.adaptive import adaptive
from tests.models.trees import random_huffman

EXAMPLE = Path(__file__).parents[3] / "examples" / "state_of_the_union"
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]


def tensors_of(weight, offsets=None):
    rows = len(weight)
    return {
        "level0.weight": np.asarray(weight, np.float32),
        "level0.bias": np.zeros(rows, np.float32),
        "level0.offsets": np.array(offsets or [0, rows]),
    }


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Export the example in each precision."""
    repository = tmp_path_factory.mktemp("repository")
    source, options = EXAMPLE / "weights.npz", SourceOptions()
    return {
        precision: export_file(
            source,
            repository / precision,
            source="theano",
            options=options,
            precision_options=PrecisionOptions(precision),
        )
        for precision in PRECISIONS
    }


def perplexity(exported):
    heldout = np.load(EXAMPLE / "heldout.npz")
    feeds = {"hidden": heldout["hidden"], "row": np.arange(2000), "target": heldout["target"]}
    log_prob = open_session(exported.file("target_log_prob.onnx")).run(None, feeds)[0]
    return float(np.exp(-log_prob.mean(dtype=np.float64)))


@pytest.mark.parametrize("offsets", [[0, 40], [0, 10, 20, 30, 40], [0, 3, 22, 40]])
def test_int8_weights_are_within_half_a_step_of_the_trained_ones(offsets):
    weight = np.random.default_rng(0).normal(size=(40, 9)) * np.logspace(-30, 4, 40)[:, None]
    tensors = tensors_of(weight, offsets)
    stored = transpose_equal_blocks(convert_precision(tensors, "int8"))
    again = model_tensors(stored)
    half_step = np.abs(weight).max(axis=1, keepdims=True) / 127 / 2
    assert stored["level0.weight"].dtype == np.int8
    assert set(again) == set(tensors)
    assert again["level0.weight"].dtype == np.float32
    assert (np.abs(again["level0.weight"] - weight) <= half_step * (1 + 1e-5)).all()


def test_equal_blocks_are_stored_transposed():
    weight = np.arange(24).reshape(8, 3)
    stored = transpose_equal_blocks(tensors_of(weight, [0, 4, 8]))
    assert stored["level0.weight"].shape == (2, 3, 4)
    assert (stored["level0.weight"][1, :, 2] == weight[6]).all()
    assert (model_tensors(stored)["level0.weight"] == weight).all()


def test_rows_of_zeros_and_of_tiny_numbers_are_stored():
    again = model_tensors(convert_precision(tensors_of([[0, 0], [1e-44, 0], [3e38, 1]]), "int8"))
    np.testing.assert_allclose(again["level0.weight"], [[0, 0], [0, 0], [3e38, 0]], rtol=1e-6)


def test_float32_rows_of_unequal_blocks_are_neither_changed_nor_copied():
    tensors = tensors_of(np.random.default_rng(0).normal(size=(4, 2)), [0, 3, 4])
    stored = transpose_equal_blocks(convert_precision(tensors, "fp32"))
    assert all(stored[name] is tensors[name] for name in tensors)
    again = model_tensors(stored)
    assert all(np.shares_memory(again[name], tensors[name]) for name in tensors)
    np.testing.assert_array_equal(again["level0.weight"], tensors["level0.weight"])


@pytest.mark.parametrize(
    ("rows", "precision", "axes"), [(8192, "fp32", 3), (8193, "fp32", 2), (8193, "int8", 3)]
)
def test_a_float_block_too_wide_for_the_l1_cache_is_stored_row_by_row(rows, precision, axes):
    tensors = tensors_of(np.arange(2 * rows).reshape(rows, 2))
    assert (
        transpose_equal_blocks(convert_precision(tensors, precision))["level0.weight"].ndim == axes
    )


def test_half_precision_keeps_the_few_rows_of_a_top_level():
    model = from_theano(**theano_arrays(clusters=65, block=64))
    stored = convert_precision(models.to_tensors(model), "fp16")
    assert stored["level0.weight"].dtype == np.float32
    assert stored["level1.weight"].dtype == np.float16
    np.testing.assert_allclose(
        model_tensors(stored)["level1.weight"], model.levels[1].weight, rtol=2**-11, atol=2**-24
    )


@pytest.mark.parametrize("value", [65505.0, -7e4])
def test_a_weight_beyond_half_precision_is_refused(value):
    with pytest.raises(ExportError, match=r"level0.weight: expected at most 65504 .* fp16, got"):
        convert_precision(tensors_of([[1.0], [value]]), "fp16")


def test_bfloat16_is_the_nearest_upper_half_of_a_float_ties_to_even():
    """Values, and the bits they round to: the upper half, one more, or the even neighbour."""
    bits = [0x3F800000, 0x3F807FFF, 0x3F808001, 0x3F808000, 0x3F818000, 0xBF808001, 0x80000000, 1]
    expected = [0x3F80, 0x3F80, 0x3F81, 0x3F80, 0x3F82, 0xBF81, 0x8000, 0]
    weight = np.array(bits, np.uint32).view(np.float32)[:, None]
    stored = convert_precision(tensors_of(weight), "bf16")
    assert stored["level0.weight"].ravel().tolist() == expected
    again = model_tensors(stored)["level0.weight"]
    assert again.ravel().view(np.uint32).tolist() == [half << 16 for half in expected]


def test_any_weight_is_within_half_a_step_of_bfloat16():
    weight = np.random.default_rng(0).normal(size=(4000, 9)) * np.logspace(-30, 37, 4000)[:, None]
    weight = weight.astype(np.float32)
    again = model_tensors(convert_precision(tensors_of(weight), "bf16"))["level0.weight"]
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, weight, rtol=2**-8, atol=0)


@pytest.mark.parametrize("value", [3.3961776e38, -np.finfo(np.float32).max])
def test_a_weight_beyond_bfloat16_is_refused(value):
    largest = float.fromhex("0x1.fep+127")
    with pytest.raises(ExportError, match=r"level0.weight: expected at most 3.38953e\+38 .* bf16"):
        convert_precision(tensors_of([[1.0], [value]]), "bf16")
    stored = convert_precision(tensors_of([[largest], [-largest]]), "bf16")
    assert stored["level0.weight"].ravel().tolist() == [0x7F7F, 0xFF7F]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_layer_without_a_softmax_is_stored_in_float32_alone(repository, precision):
    model = models.sparse_block_dot.build(np.ones((2, 3, 4, 5)), np.ones((3, 5)))
    with pytest.raises(ExportError, match=f"SparseBlockDot: expected fp32, got {precision}"):
        export_model(
            model,
            parse_destination(repository / "words"),
            precision_options=PrecisionOptions(precision),
        )
    assert not repository.exists()


@pytest.mark.parametrize(("precision", "part"), [("fp16", 2), ("bf16", 2), ("int8", 4)])
def test_weights_take_half_or_a_quarter_of_the_bytes(tmp_path, precision, part):
    model = from_theano(**theano_arrays(clusters=100, block=100, hidden=64))
    exported = export_model(
        model, parse_destination(tmp_path / "words"), precision_options=PrecisionOptions(precision)
    )
    names = {t.name: t.num_bytes for t in exported.manifest.tensors}
    rows = model.levels[0].num_rows + model.levels[1].num_rows
    weights = sum(size for name, size in names.items() if name.endswith(".weight"))
    scales = sum(size for name, size in names.items() if name.endswith((".scale", ".zero")))
    small = model.levels[0].weight.nbytes // 2 if part == 2 else 0
    assert weights == rows * 64 * 4 // part + small
    assert scales == (8 * rows if precision == "int8" else 0)
    total = exported.manifest.files[bundle.WEIGHTS].size
    assert total <= weights + scales + 4 * rows + 8 * 102 + bundle.ALIGNMENT * len(names)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("padding", ["mask", "theano"])
def test_the_graphs_of_a_bundle_equal_the_model_read_back_from_it(repository, precision, padding):
    model = from_theano(**theano_arrays(), num_targets=18, padding=padding)
    exported = export_model(
        model,
        parse_destination(repository / "words"),
        precision_options=PrecisionOptions(precision),
    )
    assert exported.manifest.precision == precision
    again = models.from_tensors(
        exported.manifest.family, bundle.load_tensors(exported), exported.manifest.attributes
    )
    hidden = np.round(np.random.default_rng(2).uniform(-63, 63, (3, 6))).astype(np.float32) / 63
    hidden[:, 0] = 1
    actual = open_session(exported.file("log_probs.onnx")).run(None, {"hidden": hidden})[0]
    expected = hierarchical_softmax.log_probs(again, hidden)
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-5)


def weights_of(model):
    """The weights of an adaptive softmax or a tree, by their names in a bundle."""
    tensors = models.to_tensors(model)
    return {n: tensor for n, tensor in tensors.items() if n.endswith(".weight") or n == "syn1"}


@pytest.mark.parametrize(
    ("precision", "stored_as", "part"),
    [("fp16", "float16", 2), ("bf16", "bfloat16", 2), ("int8", "int8", 4)],
)
@pytest.mark.parametrize("family", ["AdaptiveSoftmax", "HuffmanSoftmax"])
def test_other_families_are_exported_in_fewer_bits(repository, family, precision, stored_as, part):
    """The bundle is verified, its error is measured, and it has the weights within half a step."""
    trained = {
        "AdaptiveSoftmax": adaptive(300, (500, 1200), hidden=64, widths=(16, None), tail_bias=True),
        "HuffmanSoftmax": random_huffman(300, 64, biases=True),
    }[family]
    exported = export_model(
        trained,
        parse_destination(repository / "words"),
        precision_options=PrecisionOptions(precision),
    )
    manifest = exported.manifest
    assert (manifest.precision, manifest.schema_version) == (precision, 2)
    assert manifest.verification
    assert 1e-5 < manifest.accuracy[0].max_error < 1
    again = weights_of(
        models.from_tensors(family, bundle.load_tensors(exported), manifest.attributes)
    )
    table = {t.name: t for t in manifest.tensors}
    for name, weight in weights_of(trained).items():
        assert (table[name].dtype, table[name].num_bytes) == (stored_as, weight.nbytes // part)
        assert again[name].dtype == np.float32
        steps = {"fp16": 2.0**-11, "bf16": 2.0**-8, "int8": 1 / 127 / 2}
        largest = np.abs(weight).max(axis=1, keepdims=True)
        assert (np.abs(again[name] - weight) <= largest * steps[precision] * (1 + 1e-5)).all()


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "uint16"), ("int8", "int8")])
def test_a_layer_of_few_rows_stays_float32(precision, dtype):
    stored = stored_tensors(adaptive(3, (400, 9), hidden=4), precision)
    kept = {n: tensor.dtype.name for n, tensor in stored.items() if n.endswith(".weight")}
    assert kept == {"head.weight": "float32", "tail0.weight": dtype, "tail1.weight": dtype}
    assert ("tail0.scale" in stored, "head.scale" in stored) == (dtype == "int8", False)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_tail_of_no_width_is_stored(precision):
    trained = adaptive(3, (4, 5), widths=(0, 2))
    stored = stored_tensors(trained, precision)
    again = models.from_tensors("AdaptiveSoftmax", stored, models.attributes(trained))
    assert again.tails[0].weight.shape == (4, 0)


@pytest.mark.parametrize(
    ("precision", "max_increase"), [("fp16", 0.0005), ("bf16", 0.001), ("int8", 0.005)]
)
def test_a_language_model_keeps_its_perplexity(addresses, precision, max_increase):
    trained = perplexity(addresses["fp32"])
    assert trained == pytest.approx(75.39, abs=0.01)
    assert perplexity(addresses[precision]) == pytest.approx(trained, rel=max_increase)
