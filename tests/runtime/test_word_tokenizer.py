"""A list of words as the tokenizer of an encoder: texts become the words that training had."""

import json
import time

import pytest

from hsoftmax import bundle
from hsoftmax.bundle import BundleError
from hsoftmax.exporter import EncoderOptions, EncoderRefused
from hsoftmax.exporter.encoder import write_encoder, write_tokenizer
from hsoftmax.runtime.tokenizer import TokenizerError, open_tokenizer
from tests import encoder_models
from tests.encoder_models import HIDDEN, NUM_IDS

RULES = {
    "kind": "words",
    "lowercase": True,
    "split": "english",
    "unknown": "<unk>",
    "number": "<number>",
    "sentence_end": "</s>",
}
WORDS = [
    "<unk>",
    "<number>",
    "</s>",
    "my",
    "fellow",
    "citizens",
    "mr",
    "o'clock",
    "well-known",
    "né",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> bundle.Encoder:
    folder = tmp_path_factory.mktemp("encoder")
    path = encoder_models.save(encoder_models.mean(), folder / "model.onnx")
    return write_encoder(folder, EncoderOptions(path, mask="mask"), HIDDEN)


@pytest.fixture
def words_of(tmp_path, encoder):
    """The words that a row becomes, with the rules changed as given."""

    def words_of(row, **changes):
        path = tmp_path / "words.json"
        path.write_text(json.dumps(RULES | {"words": WORDS} | changes))
        (ids,) = open_tokenizer(path, encoder).inputs([row])["ids"]
        return [WORDS[i] for i in ids]

    return words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("My FELLOW citizens", "my fellow citizens"),
        ("  my,fellow;\tcitizens: ", "my fellow citizens"),
        ("my fellow citizens.", "my fellow citizens </s>"),
        ("My fellow. Citizens", "my fellow </s> citizens"),
        ("my?! ... fellow", "my </s> fellow"),
        (". my", "my"),
        ("my\n\nfellow\n", "my </s> fellow"),
        ("my.\nfellow", "my </s> fellow"),
        ("Mr. Fellow", "mr fellow"),
        ("My [Laughter.] fellow [see [note] citizens", "my fellow citizens"),
        ("my ] fellow [ citizens", "my fellow citizens"),
        ("at 5 O'Clock", "<unk> <number> o'clock"),
        ("1,234.56 12th 2026.", "<number> <number> <number> </s>"),
        ("well-known -well 'my'", "well-known <unk> my"),
        ("né NÉ ne", "né né <unk>"),
        ("my <unk> <number> </s> fellow", "my <unk> <number> </s> fellow"),
        ("<b>my</b>", "<unk> my <unk>"),
        ("my_fellow", "my fellow"),
    ],
)
def test_english_text_becomes_the_words_of_the_addresses(words_of, text, words):
    assert words_of(text) == words.split()


def test_words_of_a_list_are_not_split(words_of):
    row = ["My", "fellow citizens", "</s>", "1790", "."]
    assert words_of(row) == ["my", "<unk>", "</s>", "<number>", "<unk>"]


def test_spaces_alone_separate_words_by_default(words_of):
    plain = {"split": "spaces", "lowercase": False, "number": None, "sentence_end": None}
    assert words_of("my\tfellow  My citizens. 5\n", **plain) == [
        "my", "fellow", "<unk>", "<unk>", "<unk>",
    ]  # fmt: skip
    assert words_of("my <number> 5", **plain | {"number": "<number>"}) == [
        "my", "<number>", "<number>",
    ]  # fmt: skip


def test_without_a_word_for_the_end_of_a_sentence_there_is_none(words_of):
    assert words_of("my. fellow", sentence_end=None) == ["my", "fellow"]


def test_a_word_that_stands_for_unknown_ones_is_no_part_of_longer_words(words_of):
    assert words_of("citizens myself", unknown="my") == ["citizens", "my"]


def test_the_smallest_file_has_a_kind_and_words(tmp_path, encoder):
    path = tmp_path / "words.json"
    path.write_text('{"words": ["my", "fellow"], "kind": "words"}')
    tokenizer = open_tokenizer(path, encoder)
    assert tokenizer.inputs(["fellow my", ["my"]]) == {"ids": [[1, 0], [0]]}
    with pytest.raises(TokenizerError) as refused:
        tokenizer.inputs(["my", "my zebra"])
    assert str(refused.value) == (
        "inputs row 1: expected words of the tokenizer's list, got 'zebra', which is not in it"
    )
    with pytest.raises(TokenizerError, match="row 0: expected a text with a token, got none"):
        tokenizer.inputs([" \n"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": []}, "words: Tuple should have at least 1 item"),
        ({"words": [*WORDS, "my"]}, "words: expected each word once, got one twice"),
        ({"words": ["my"]}, "unknown: expected one of the words, got '<unk>'"),
        ({"split": "spaces"}, "sentence_end: expected split english beside it, got spaces"),
        ({"split": "french"}, "split: Input should be 'spaces' or 'english'"),
        ({"version": 2}, "version: Input should be 1"),
        ({"kind": "letters"}, "kind: Input should be 'words'"),
        ({"stem": True}, "stem: Extra inputs are not permitted"),
    ],
)
def test_a_list_that_is_wrong_is_refused_in_one_line(tmp_path, encoder, changes, message):
    path = tmp_path / "words.json"
    path.write_text(json.dumps(RULES | {"words": WORDS} | changes))
    with pytest.raises(EncoderRefused) as refused:
        write_tokenizer(tmp_path, path, encoder)
    assert str(refused.value).startswith(f"{path}: expected a list of words, got: {message}")
    assert "\n" not in str(refused.value)


def test_a_list_with_more_words_than_the_encoder_has_ids_is_refused(tmp_path, encoder):
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"kind": "words", "words": [f"w{i}" for i in range(NUM_IDS + 1)]}))
    with pytest.raises(TokenizerError, match="at most 49, as the encoder knows 50, got 50 for 'w5"):
        open_tokenizer(path, encoder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"kind": "words"'])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, encoder, content):
    path = tmp_path / "words.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="expected "):
        open_tokenizer(path, encoder)


@pytest.mark.parametrize("part", ["[", "a-'", "1,", "<unk", ".", "[a]", "Mr", "\n", "a\n"])
def test_long_hostile_texts_are_split_in_one_pass(words_of, part):
    start = time.process_time()
    words_of("my " + part * (2**19 // len(part)))
    assert time.process_time() - start < 5
