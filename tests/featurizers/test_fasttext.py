"""Tests of fastText's features: `hidden` is the library's, bit for bit, for each kind of model."""

import random
from itertools import chain
from pathlib import Path

import fasttext
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsoftmax.exporter import SourceError, SourceOptions, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.featurizers import MAX_TEXT_BYTES, featurize, open_featurizer
from hsoftmax.featurizers.fasttext import numpy_hidden
from hsoftmax.featurizers.ngrams import Ngrams, word_features
from hsoftmax.runtime.native import load_library
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.exporter.sources.test_fasttext import SENTENCES, real_model

_THREADS = 12  # each initialises a tenth of fastText's input matrix, so 10 are needed
ODD_TEXTS = [
    "", "   ", "\t\r\v\f", "\0", "a\0b", "🙂🙂 👩‍👩‍👧", "word" * 300, "x", "é", "</s>",
    "before </s> after", "__label__en hello", "hello __label__unknown", "__label__", "<a> < >",
    "w1 w2 w3 w4", "w1 unknownwords w2", "a" * 70 + " b", "日本語の文です", "\u00a0w1\u2003w2",
]  # fmt: skip


def lines(count: int) -> str:
    words = [f"w{i}" for i in range(60)] + ["été", "Straße", "слово", "日本語", "🙂"]
    rng = random.Random(0)
    return "".join(
        f"__label__l{i % 12} {' '.join(rng.choice(words) for _ in range(6))}\n"
        for i in range(count)
    )


@pytest.fixture(scope="module")
def text_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_text(lines(1200))
    return path


SUPERVISED = {
    "words": {"bucket": 0},
    "characters": {"minn": 2, "maxn": 5, "bucket": 3000},
    "one-character": {"minn": 1, "maxn": 3, "bucket": 500},
    "word-ngrams": {"wordNgrams": 3, "bucket": 2000},
    "both": {"minn": 3, "maxn": 6, "wordNgrams": 2, "bucket": 5000},
}


@pytest.fixture(scope="module", params=SUPERVISED)
def supervised(request, text_file):
    model = fasttext.train_supervised(
        str(text_file), loss="hs", dim=10, epoch=1, minCount=1, thread=_THREADS, verbose=0,
        **SUPERVISED[request.param],
    )  # fmt: skip
    return saved(model, text_file.with_name(f"{request.param}.bin"))


@pytest.fixture(scope="module", params=["all-kept", "pruned", "pruned-norms"])
def quantised(request, text_file):
    model = fasttext.train_supervised(
        str(text_file), loss="hs", dim=10, epoch=1, minCount=1, thread=_THREADS, verbose=0, minn=2,
        maxn=4, wordNgrams=2, bucket=3000,
    )  # fmt: skip
    cutoff = 0 if request.param == "all-kept" else 400
    norms = request.param == "pruned-norms"
    model.quantize(cutoff=cutoff, qnorm=norms, dsub=3, thread=_THREADS, verbose=0)
    return saved(model, text_file.with_name(f"{request.param}.ftz"))


def saved(model, path):
    """Return the library's model, and the featurizer of its bundle, whose arrays are aligned."""
    model.save_model(str(path))
    exported = export_file(path, path.with_name(f"{path.stem}-bundle"), source="fasttext")
    return fasttext.load_model(str(path)), open_featurizer(exported)


def expect_equal(oracle, featurizer, texts):
    """Compare the native kernel, where there is one, and NumPy with fastText."""
    assert (featurizer.kernel is None) == isinstance(load_library(), str)
    rows = featurize(featurizer, texts)
    assert not rows.errors
    expected = np.array([oracle.get_sentence_vector(text) for text in texts])
    np.testing.assert_array_equal(rows.hidden, expected)
    np.testing.assert_array_equal(list(numpy_hidden(featurizer, texts)), expected)


def test_supervised_models_equal_fasttext(supervised):
    expect_equal(*supervised, [*SENTENCES.values(), *ODD_TEXTS])


def test_quantised_models_equal_fasttext(quantised):
    expect_equal(*quantised, [*SENTENCES.values(), *ODD_TEXTS])


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    path = real_model()
    to = tmp_path_factory.mktemp("language") / "lid"
    exported = export_file(path, to, source="fasttext")
    return fasttext.load_model(str(path)), open_featurizer(exported)


def test_the_real_model_equals_fasttext_on_long_texts(language_model):
    a_million = 10**6
    long = ["the quick brown fox " * (a_million // 20), "x" * a_million, "дом " * 100_000]
    expect_equal(*language_model, [*SENTENCES.values(), *ODD_TEXTS, *long])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=6)
)
def test_any_text_equals_fasttext_alone_and_among_others(language_model, texts):
    oracle, featurizer = language_model
    rows = featurize(featurizer, texts)
    np.testing.assert_array_equal(rows.hidden, list(numpy_hidden(featurizer, texts)) or rows.hidden)
    for text, hidden in zip(texts, rows.hidden, strict=True):
        np.testing.assert_array_equal(hidden, oracle.get_sentence_vector(text))
        np.testing.assert_array_equal(hidden, featurize(featurizer, [text]).hidden[0])


def test_a_list_of_words_is_its_text(language_model):
    _, featurizer = language_model
    rows = featurize(featurizer, ["bonjour tout le monde", ["bonjour", "tout", "le", "monde"]])
    np.testing.assert_array_equal(rows.hidden[0], rows.hidden[1])


@pytest.fixture(scope="module", params=["cbow", "skipgram"])
def unsupervised(request, text_file):
    model = fasttext.train_unsupervised(
        str(text_file), model=request.param, loss="hs", dim=10, epoch=1, minCount=1, bucket=2000,
        thread=_THREADS, verbose=0,
    )  # fmt: skip
    return request.param, *saved(model, text_file.with_name(f"{request.param}.bin"))


def test_unsupervised_models_take_the_mean_of_all_rows_of_their_words(unsupervised):
    kind, oracle, featurizer = unsupervised
    contexts = [["w1"], ["été"], ["unseen"], ["</s>"]]
    contexts += [["w1", "w2"], ["w3", "unseen", "日本語"]] if kind == "cbow" else []
    rows = featurize(featurizer, contexts)
    assert not rows.errors
    for words, hidden in zip(contexts, rows.hidden, strict=True):
        numbers = np.concatenate([oracle.get_subwords(word)[1] for word in words])
        expected = oracle.get_input_matrix()[numbers].mean(axis=0)
        np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-7)
    if kind == "skipgram":
        np.testing.assert_array_equal(rows.hidden[0], oracle.get_word_vector("w1"))


def test_a_skip_gram_takes_one_word(unsupervised):
    kind, _, featurizer = unsupervised
    errors = featurize(featurizer, ["w1 w2", "", "w1"]).errors
    if kind == "skipgram":
        assert [str(errors[i]).split(",")[0] for i in (0, 1)] == ["expected one word"] * 2
        assert "got 2: send each word as an input of its own" in str(errors[0])
    else:
        assert list(errors) == [1]
        assert "expected a word, or a part of one, that the model knows, got none" in str(errors[1])


# --- n-grams --------------------------------------------------------------------------------------


def naive_rows(word: str, low: int, high: int, buckets: int) -> list[int]:
    """Return the buckets of a word's n-grams, one n-gram after another."""
    text = f"<{word}>"
    found = []
    for start in range(len(text)):
        for end in range(start + 1, min(start + high, len(text)) + 1):
            alone = end == start + 1 and (start == 0 or end == len(text))
            if end - start >= low and not alone:
                state = 2166136261
                for byte in text[start:end].encode():
                    state = (state ^ (byte - 256 if byte > 127 else byte)) % 2**32
                    state = state * 16777619 % 2**32
                found.append(state % buckets)
    return found


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    st.lists(words, min_size=1, max_size=8),
    st.integers(0, 3),
    st.integers(1, 7),
    st.integers(1, 999),
)
def test_ngrams_equal_a_naive_loop(texts, low, high, buckets):
    ngrams = Ngrams(low, high, 0, buckets, 1000)
    encoded = [text.encode() for text in texts]
    features, counts = word_features(encoded, range(len(texts)), [False] * len(texts), ngrams)
    expected = [[i, *(1000 + b for b in naive_rows(text, low, high, buckets))]
                for i, text in enumerate(texts)]  # fmt: skip
    assert features.tolist() == list(chain.from_iterable(expected))
    assert counts.tolist() == [len(rows) for rows in expected]


# --- texts and files that are refused -------------------------------------------------------------


def test_a_line_end_and_a_long_text_are_errors_of_their_row_alone(language_model):
    _, featurizer = language_model
    texts = ["a\nb", "x" * (MAX_TEXT_BYTES + 1), "é" * (MAX_TEXT_BYTES // 2 + 1), "hello"]
    rows = featurize(featurizer, texts)
    assert sorted(rows.errors) == [0, 1, 2]
    assert str(rows.errors[0]).startswith("expected one line, got a line end at byte 1: ")
    assert "expected a text of at most 1048576 bytes, got 1048577" in str(rows.errors[1])
    assert "got 1048578" in str(rows.errors[2])
    assert not rows.hidden[:3].any()
    np.testing.assert_array_equal(rows.hidden[3], featurize(featurizer, ["hello"]).hidden[0])


def test_a_model_without_line_end_knows_no_word_of_an_empty_text(tmp_path):
    file = FastTextFile(words={"x": 1}).write(tmp_path / "model.bin")
    featurizer = load(file, "fasttext", SourceOptions()).featurizer
    rows = featurize(featurizer, ["", "unknown", "x"])
    assert sorted(rows.errors) == [0, 1]
    assert rows.hidden[2].any()


def test_version_11_has_no_ngrams_in_a_supervised_model(tmp_path):
    content = FastTextFile(words={"</s>": 2, "x": 1}).content()
    numbers = np.frombuffer(content, "<i4", 14).copy()
    names = ["magic", "version", "dim", "ws", "epoch", "minCount", "neg", "wordNgrams", "loss",
             "model", "bucket", "minn", "maxn"]  # fmt: skip
    for name, value in {"version": 11, "minn": 2, "maxn": 3}.items():
        numbers[names.index(name)] = value
    path = tmp_path / "model.bin"
    path.write_bytes(numbers.tobytes() + content[56:])
    assert load(path, "fasttext", SourceOptions()).featurizer.ngrams.max_chars == 0
    numbers[1] = 12
    path.write_bytes(numbers.tobytes() + content[56:])
    with pytest.raises(SourceError, match=r"text: bucket: expected at least 1 .* --no-text$"):
        load(path, "fasttext", SourceOptions())
    assert load(path, "fasttext", SourceOptions(text=False)).featurizer is None


def test_an_input_matrix_with_too_few_rows_is_refused(tmp_path):
    content = FastTextFile().content()
    numbers = np.frombuffer(content, "<i4", 14).copy()
    numbers[10], numbers[11], numbers[12] = 5, 2, 3
    path = tmp_path / "model.bin"
    path.write_bytes(numbers.tobytes() + content[56:])
    with pytest.raises(SourceError, match=r"text: input: expected 7 rows, got 2: leave"):
        load(path, "fasttext", SourceOptions())
