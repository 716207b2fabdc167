"""An encoder beside the head: what is read from its ONNX model, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hsoftmax import bundle, exporter
from hsoftmax.exporter import EncoderOptions, EncoderRefused
from hsoftmax.exporter.encoder import write_encoder
from hsoftmax.models import from_theano
from hsoftmax.runtime.encoder import encode, open_encoder
from hsoftmax.runtime.encoder_inputs import EncoderError
from tests import encoder_models
from tests.encoder_models import HIDDEN, NUM_IDS, gru_states, mean_of

from .conftest import theano_arrays

ROWS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7], [49, 0]]
TOLERANCE = 1e-5


def export_head(path: Path, to: Path, hidden: int, **options) -> bundle.Bundle:
    """A head of so many numbers with the encoder of this file."""
    return exporter.export_model(
        from_theano(**theano_arrays(hidden=hidden)),
        exporter.parse_destination(to),
        encoder=EncoderOptions(path, **options),
    )


@pytest.fixture
def export(tmp_path):
    """Function that writes this ONNX model as the encoder of a bundle without a head."""

    def export(proto: onnx.ModelProto, **options) -> bundle.Bundle:
        path = encoder_models.save(proto, tmp_path / "model.onnx")
        folder = tmp_path / "bundle"
        folder.mkdir()
        encoder = write_encoder(folder, EncoderOptions(path, **options), HIDDEN)
        return bundle.Bundle(folder, headless_manifest(encoder, folder))

    return export


def headless_manifest(encoder: bundle.Encoder, folder: Path) -> bundle.Manifest:
    return bundle.Manifest(
        family="HierarchicalSoftmax",
        hidden_size=HIDDEN,
        num_targets=None,
        num_clusters=None,
        precision="fp32",
        attributes={},
        tasks={},
        tensors=(),
        labels=None,
        files={
            file.name: bundle.File(size=file.stat().st_size, sha256=bundle.sha256(file))
            for file in folder.iterdir()
        },
        source=bundle.Source(format="python", files={}, exporter="test"),
        verification=(),
        encoder=encoder,
    )


def states(exported: bundle.Bundle, rows=ROWS) -> np.ndarray:
    encoder = open_encoder(exported)
    assert encoder is not None
    return encode(encoder, {"ids": rows})


def refusal(export, proto: onnx.ModelProto, **options) -> str:
    with pytest.raises(EncoderRefused) as refused:
        export(proto, **options)
    assert "\n" not in str(refused.value)
    assert str(refused.value).count("model.onnx") == 1
    return str(refused.value)


def test_a_mean_under_a_mask_is_that_of_each_row(export):
    exported = export(encoder_models.mean(), mask="mask")
    np.testing.assert_allclose(states(exported), [mean_of(row) for row in ROWS], atol=TOLERANCE)


def test_the_manifest_describes_the_encoder(tmp_path):
    path = encoder_models.save(encoder_models.mean("attention_mask"), tmp_path / "model.onnx")
    exported = export_head(path, tmp_path / "repository" / "words", HIDDEN)
    encoder, files = exported.manifest.encoder, exported.manifest.files
    assert encoder is not None
    assert exported.manifest.schema_version == 2
    assert (encoder.file, encoder.weights) == ("encoder.onnx", "encoder.weights")
    assert {"encoder.onnx", "encoder.weights"} <= files.keys()
    assert (encoder.mask, encoder.lengths, encoder.position) == ("attention_mask", None, None)
    assert [(port.name, port.shape) for port in encoder.row_inputs] == [
        ("ids", ("batch", "length"))
    ]
    assert encoder.num_ids == {"ids": NUM_IDS}
    assert exported.manifest.hidden_size == HIDDEN
    bundle.check_hashes(exported)
    np.testing.assert_allclose(states(exported), [mean_of(row) for row in ROWS], atol=TOLERANCE)


def test_the_weights_are_stored_once(export):
    exported = export(encoder_models.mean(), mask="mask")
    files = exported.manifest.files
    table = encoder_models.TABLE.nbytes
    assert table <= files["encoder.weights"].size < table + bundle.ALIGNMENT
    assert files["encoder.onnx"].size < table


def test_files_may_be_links_to_a_folder_each(export, tmp_path):
    """As in caches that name content by its hash, whose links ONNX Runtime does not follow."""
    exported = export(encoder_models.mean(), mask="mask")
    for file in list(exported.path.iterdir()):
        moved = tmp_path / "cache" / file.name / "content"
        moved.parent.mkdir(parents=True)
        file.rename(moved)
        file.symlink_to(moved)
    np.testing.assert_allclose(states(exported), [mean_of(row) for row in ROWS], atol=TOLERANCE)


@pytest.mark.parametrize("lengths", [None, "lengths"])
def test_a_recurrent_network_gives_each_row_its_last_state(export, lengths):
    exported = export(encoder_models.gru(lengths=lengths is not None), lengths=lengths)
    wanted = [gru_states(row)[-1] for row in ROWS]
    np.testing.assert_allclose(states(exported), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("lengths", [None, "lengths"])
@pytest.mark.parametrize("position", ["first", "last", "each"])
def test_the_position_chooses_among_the_states(export, lengths, position):
    proto = encoder_models.gru(lengths=lengths is not None, outputs=["states"])
    exported = export(proto, lengths=lengths, position=position)
    chosen = {"first": slice(0, 1), "last": slice(-1, None), "each": slice(None)}[position]
    wanted = np.concatenate([gru_states(row)[chosen] for row in ROWS])
    np.testing.assert_allclose(states(exported), wanted, atol=TOLERANCE)


def test_external_weights_are_carried_along_once(export, tmp_path):
    proto = encoder_models.mean()
    onnx.save_model(
        proto, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0,
        location="split.data",
    )  # fmt: skip
    proto = onnx.load(tmp_path / "split.onnx")
    exported = export(proto, mask="mask")
    np.testing.assert_allclose(states(exported), [mean_of(row) for row in ROWS], atol=TOLERANCE)


def test_only_the_chosen_output_and_its_inputs_are_kept(export):
    """A model of a language often has the logits of its own softmax beside the state."""
    proto = encoder_models.gru(outputs=["hidden", "states"])
    proto.graph.input.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, ["b", 3]))
    proto.graph.node.append(helper.make_node("MatMul", ["unused", "vocabulary"], ["logits"]))
    proto.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 9]))
    vocabulary = np.zeros((3, 9), dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(vocabulary, "vocabulary"))
    exported = export(proto, output="hidden")
    kept = onnx.load(exported.file("encoder.onnx")).graph
    assert [value.name for value in kept.input] == ["ids"]
    assert [value.name for value in kept.output] == ["hidden"]
    assert "vocabulary" not in {tensor.name for tensor in kept.initializer}
    wanted = [gru_states(row)[-1] for row in ROWS]
    np.testing.assert_allclose(states(exported), wanted, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([NUM_IDS], r"inputs.ids row 1: expected ids from 0 to 49, got 50"),
        ([0, -1], r"inputs.ids row 1: expected ids from 0 to 49, got -1"),
        ([], r"inputs.ids row 1: expected at least one position, got none"),
        ([0.5], r"inputs.ids row 1: expected integers, got something else"),
        ([2**70], r"inputs.ids row 1: expected integers"),
        (["we"], r"inputs.ids row 1: expected integers, got something else"),
        ([[1, 2]], r"inputs.ids row 1: expected a list of numbers, got shape \[1, 2\]"),
        ([[1], 2], r"inputs.ids row 1: expected lists of integers of equal length"),
        (7, r"inputs.ids row 1: expected a list of numbers, got shape \[\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(export, row, message):
    encoder = open_encoder(export(encoder_models.mean(), mask="mask"))
    assert encoder is not None
    with pytest.raises(EncoderError, match=message):
        encode(encoder, {"ids": [[1, 2], row]})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs: expected ids, got none"),
        ({"tokens": [[1]]}, "inputs: expected ids, got tokens"),
        ({"ids": [[1]], "mask": [[1]]}, "inputs.mask: expected only ids, got this input too"),
        ({"ids": []}, "inputs.ids: expected at least one row, got none"),
    ],
)
def test_other_inputs_are_refused(export, inputs, message):
    encoder = open_encoder(export(encoder_models.mean(), mask="mask"))
    assert encoder is not None
    with pytest.raises(EncoderError, match=message):
        encode(encoder, inputs)


def test_a_width_other_than_the_heads_is_refused(tmp_path):
    path = encoder_models.save(encoder_models.gru(), tmp_path / "model.onnx")
    repository = tmp_path / "repository"
    with pytest.raises(EncoderRefused) as refused:
        export_head(path, repository / "words", 6)
    assert str(refused.value) == (
        f"{path}: output hidden: expected states of 6 numbers, as the head reads, got 8"
    )
    assert not repository.exists()


def test_several_outputs_are_listed(export):
    message = refusal(export, encoder_models.gru(outputs=["hidden", "states"]))
    assert "one of hidden, states, got none: name it with --encoder-output" in message


def test_an_unknown_output_is_refused(export):
    message = refusal(export, encoder_models.gru(), output="logits")
    assert "one of hidden, got 'logits'" in message


def test_a_state_for_each_position_needs_a_position(export):
    message = refusal(export, encoder_models.gru(outputs=["states"]))
    assert "expected --encoder-position first, last or each" in message


def test_one_state_a_row_needs_no_position(export):
    message = refusal(export, encoder_models.gru(), position="last")
    assert "expected no --encoder-position, as it has one state a row, got last" in message


def test_a_model_that_reads_the_padding_is_refused(export):
    message = refusal(export, encoder_models.mean(masked=False), mask="mask")
    assert "expected the same states for rows of 8 and 13 positions together as alone" in message
    assert "does the model use mask at every step?" in message


def test_a_model_whose_first_axis_is_time_is_refused(export):
    """A recurrent network that was exported without `batch_first`."""
    proto = encoder_models.gru(outputs=["states"])
    transposes = [node for node in proto.graph.node if node.op_type == "Transpose"]
    for node in transposes:
        node.attribute[0].ints[:] = [0, 1, 2]
    message = refusal(export, proto, position="last")
    assert "is the first dimension of ids the batch?" in message


def test_a_fixed_batch_is_refused(export):
    proto = encoder_models.gru()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    message = refusal(export, proto)
    assert "input ids: expected a free first dimension, the batch, got [1, 'length']" in message


def test_an_input_of_another_type_is_refused(export):
    proto = encoder_models.mean()
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT16
    message = refusal(export, proto, mask="mask")
    assert "input mask: expected int64, int32, float32, bool, got tensor(float16)" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "pad"}, "--encoder-mask: expected one of the inputs ids, mask, got 'pad'"),
        ({"lengths": "len"}, "--encoder-lengths: expected one of the inputs ids, mask, got 'len'"),
        ({"lengths": "mask"}, "input mask: expected lengths, integers [batch], got int64"),
    ],
)
def test_a_mask_or_lengths_that_the_model_lacks_are_refused(export, options, message):
    assert message in refusal(export, encoder_models.mean(), **options)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(EncoderRefused, match=r"model\.onnx: expected an ONNX model") as refused:
        write_encoder(tmp_path, EncoderOptions(path), HIDDEN)
    assert "\n" not in str(refused.value)


def test_a_model_with_operators_that_nothing_knows_is_refused(export):
    proto = encoder_models.gru()
    proto.graph.node[0].op_type = "GatherOfTomorrow"
    assert "expected a graph that runs" in refusal(export, proto)
