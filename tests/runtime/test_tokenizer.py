"""A tokenizer in front of an encoder: texts become ids, and one that does not fit is refused."""

import sys

import numpy as np
import pytest

from hsoftmax import bundle, exporter
from hsoftmax.exporter import EncoderOptions, EncoderRefused
from hsoftmax.exporter.encoder import write_encoder, write_tokenizer
from hsoftmax.models import from_theano
from hsoftmax.runtime.encoder import encode_texts, open_encoder
from hsoftmax.runtime.tokenizer import TokenizerError, open_tokenizer
from tests import encoder_models
from tests.encoder_models import HIDDEN, NUM_IDS, mean_of
from tests.exporter.conftest import theano_arrays

from .tokenizer_files import WORDS, write_json

pytest.importorskip("tokenizers", reason="needs the extra tokenizers")


@pytest.fixture
def encoder(tmp_path) -> bundle.Encoder:
    path = encoder_models.save(encoder_models.mean(), tmp_path / "model.onnx")
    return write_encoder(tmp_path, EncoderOptions(path, mask="mask"), HIDDEN)


def test_texts_and_words_have_the_states_of_their_ids(tmp_path):
    model = encoder_models.save(encoder_models.mean(), tmp_path / "model.onnx")
    tokenizer = write_json(tmp_path / "words.json")
    exported = exporter.export_model(
        from_theano(**theano_arrays(hidden=HIDDEN)),
        exporter.parse_destination(tmp_path / "repository" / "words"),
        encoder=EncoderOptions(model, mask="mask", tokenizer=tokenizer),
    )
    assert exported.manifest.tokenizer == "tokenizer.json"
    assert exported.file("tokenizer.json").read_bytes() == tokenizer.read_bytes()
    loaded = open_encoder(exported)
    assert loaded is not None
    rows = ["We the people", "of", ["the", "PEOPLE"], "us"]
    ids = [[1, 2, 3], [4], [2, 3], [0]]
    np.testing.assert_allclose(encode_texts(loaded, rows), [mean_of(row) for row in ids], atol=1e-5)


def test_padding_of_the_file_is_left_to_the_batches(tmp_path, encoder):
    padding = {
        "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "[UNK]",
    }  # fmt: skip
    tokenizer = open_tokenizer(write_json(tmp_path / "words.json", padding=padding), encoder)
    assert tokenizer.inputs(["we the"]) == {"ids": [[1, 2]]}


def test_truncation_of_the_file_is_kept(tmp_path, encoder):
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path = write_json(tmp_path / "words.json", truncation=truncation)
    assert open_tokenizer(path, encoder).inputs(["we the people"]) == {"ids": [[1, 2]]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("", "inputs row 1: expected a text with a token, got none"),
        ("x" * (2**20 + 1), "inputs row 1: expected at most 1048576 characters, got 1048577"),
        ("\ud800", "inputs row 1: expected Unicode text, got other"),
        (["we", "\ud800"], "inputs row 1: expected Unicode text, got other"),
    ],
)
def test_texts_that_are_wrong_are_refused(tmp_path, encoder, row, message):
    tokenizer = open_tokenizer(write_json(tmp_path / "words.json"), encoder)
    with pytest.raises(TokenizerError, match=message):
        tokenizer.inputs(["we", row])


def test_a_tokenizer_with_more_ids_than_the_encoder_is_refused(tmp_path, encoder):
    path = write_json(tmp_path / "words.json", WORDS | {"zebra": NUM_IDS})
    with pytest.raises(EncoderRefused) as refused:
        write_tokenizer(tmp_path, path, encoder)
    assert str(refused.value) == (
        f"{path}: tokenizer: expected ids of at most 49, as the encoder knows 50, "
        "got 50 for 'zebra'"
    )


@pytest.mark.parametrize("content", ["", "{}", "[1", '{"model": {"type": "WordLevel"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, encoder, content):
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(EncoderRefused, match=r"expected a tokenizer\.json, got") as refused:
        write_tokenizer(tmp_path, path, encoder)
    assert "\n" not in str(refused.value)


def test_an_encoder_of_several_sequences_has_no_place_for_text(tmp_path, encoder):
    frames = bundle.Port(name="frames", dtype="float32", shape=("batch", "length", 3))
    other = encoder.model_copy(update={"inputs": (*encoder.inputs, frames)})
    with pytest.raises(TokenizerError, match="got the inputs ids, frames"):
        open_tokenizer(write_json(tmp_path / "words.json"), other)


def test_the_types_of_tokens_are_filled_in(tmp_path, encoder):
    types = bundle.Port(name="token_type_ids", dtype="int64", shape=("batch", "length"))
    other = encoder.model_copy(update={"inputs": (*encoder.inputs, types)})
    tokenizer = open_tokenizer(write_json(tmp_path / "words.json"), other)
    assert tokenizer.inputs(["we the"]) == {"ids": [[1, 2]], "token_type_ids": [[0, 0]]}


def test_without_the_package_the_message_names_the_extra(tmp_path, encoder, monkeypatch):
    path = write_json(tmp_path / "words.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(bundle.BundleError, match=r"pip install '\.\[tokenizers\]'"):
        open_tokenizer(path, encoder)
