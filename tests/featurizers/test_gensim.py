"""Tests of gensim's features against what gensim's own training computes from its vectors."""

import numpy as np
import pytest
from gensim.models import Doc2Vec, FastText, Word2Vec
from gensim.models.doc2vec import TaggedDocument

from hsoftmax.exporter import SourceError, SourceOptions
from hsoftmax.exporter.sources import load
from hsoftmax.featurizers import MAX_WORDS, featurize

_RNG = np.random.default_rng(0)
SENTENCES = [[f"w{int(w)}" for w in _RNG.zipf(1.3, 12) if w < 90] for _ in range(200)]
SETTINGS = {"hs": 1, "negative": 0, "vector_size": 12, "min_count": 1, "epochs": 1, "seed": 1,
            "workers": 1}  # fmt: skip
CONTEXT = ["w1", "w2", "unknown", "w5", "w2"]


def featurizer_of(model, path, *, separate=False):
    model.save(str(path), sep_limit=0 if separate else 2**30)
    return load(path, "gensim", SourceOptions()).featurizer


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("mean", [0, 1])
def test_cbow_takes_the_mean_or_the_sum_of_the_known_words(tmp_path, mean, separate):
    model = Word2Vec(SENTENCES, sg=0, cbow_mean=mean, **SETTINGS)
    featurizer = featurizer_of(model, tmp_path / "words.model", separate=separate)
    rows = featurize(featurizer, [CONTEXT, "w1 w2\nunknown  w5 w2", ["w3"]])
    assert not rows.errors
    vectors = model.wv[["w1", "w2", "w5", "w2"]]
    expected = vectors.mean(axis=0) if mean else vectors.sum(axis=0)
    np.testing.assert_allclose(rows.hidden[0], expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(rows.hidden[1], rows.hidden[0])
    np.testing.assert_array_equal(rows.hidden[2], model.wv["w3"])


def test_a_skip_gram_takes_the_vector_of_one_word(tmp_path):
    model = Word2Vec(SENTENCES, sg=1, **SETTINGS)
    featurizer = featurizer_of(model, tmp_path / "words.model")
    rows = featurize(featurizer, [["w3"], "w3", ["w1", "w2"], ["unknown"], []])
    np.testing.assert_array_equal(rows.hidden[0], model.wv["w3"])
    np.testing.assert_array_equal(rows.hidden[1], model.wv["w3"])
    assert sorted(rows.errors) == [2, 3, 4]
    assert "expected one word" in str(rows.errors[2])
    assert "expected a word that the model knows, got 'unknown': " in str(rows.errors[3])


def ngram_rows(model, word):
    """Return the n-gram vectors of a word by gensim's own hashes."""
    from gensim.models.fasttext import ft_ngram_hashes

    wv = model.wv
    return wv.vectors_ngrams[ft_ngram_hashes(word, wv.min_n, wv.max_n, wv.bucket)]


@pytest.mark.parametrize("sg", [0, 1])
def test_fasttext_adds_the_vectors_of_ngrams(tmp_path, sg):
    model = FastText(SENTENCES, sg=sg, bucket=100, **SETTINGS)
    featurizer = featurizer_of(model, tmp_path / "words.model")
    number = model.wv.key_to_index
    if sg:
        (row,) = featurize(featurizer, ["w12"]).hidden
        parts = ngram_rows(model, "w12")
        # gensim divides by the number of n-grams, without the word itself.
        expected = (model.wv.vectors_vocab[number["w12"]] + parts.sum(axis=0)) / len(parts)
    else:
        (row,) = featurize(featurizer, [["w12", "w1", "unseen"]]).hidden
        known = [model.wv.vectors_vocab[number[word]][None] for word in ("w12", "w1")]
        parts = [ngram_rows(model, word) for word in ("w12", "w1", "unseen")]
        expected = np.concatenate([*known, *parts]).mean(axis=0)
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("number_tags", [False, True])
@pytest.mark.parametrize("mean", [0, 1])
def test_doc2vec_dm_reads_a_tag_and_then_words(tmp_path, mean, number_tags):
    documents = [
        TaggedDocument(words, [i if number_tags else f"doc {i}"])
        for i, words in enumerate(SENTENCES)
    ]
    # gensim 4.4 drops its own `dm_mean` and trains by `cbow_mean`, which the file holds.
    model = Doc2Vec(documents, dm=1, cbow_mean=mean, **SETTINGS)
    featurizer = featurizer_of(model, tmp_path / "documents.model")
    key = 7 if number_tags else "doc 7"
    rows = featurize(featurizer, [[str(key), *CONTEXT], [str(key)], ["none", "w1"], []])
    vectors = np.concatenate([model.wv[["w1", "w2", "w5", "w2"]], model.dv[key][None]])
    expected = vectors.mean(axis=0) if mean else vectors.sum(axis=0)
    np.testing.assert_allclose(rows.hidden[0], expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(rows.hidden[1], model.dv[key])
    assert "got 'none', which is none of the model's" in str(rows.errors[2])
    assert "expected a document's tag before the words, got nothing" in str(rows.errors[3])


def test_doc2vec_dbow_reads_a_tag_alone(tmp_path):
    documents = [TaggedDocument(words, [f"d{i}"]) for i, words in enumerate(SENTENCES)]
    model = Doc2Vec(documents, dm=0, **SETTINGS)
    rows = featurize(featurizer_of(model, tmp_path / "some.model"), [["d3"], ["d3", "w1"]])
    np.testing.assert_array_equal(rows.hidden[0], model.dv["d3"])
    assert "expected a document's tag alone" in str(rows.errors[1])


def test_doc2vec_with_concatenated_vectors_takes_no_text(tmp_path):
    documents = [TaggedDocument(words, [i]) for i, words in enumerate(SENTENCES)]
    Doc2Vec(documents, dm=1, dm_concat=1, **SETTINGS).save(str(tmp_path / "some.model"))
    loaded = load(tmp_path / "some.model", "gensim", SourceOptions())
    assert loaded.featurizer is None
    assert "dm_concat" in loaded.no_text


def test_words_that_are_tuples_are_found_by_their_labels(tmp_path):
    sentences = [[("a", int(w[1:])) for w in words] for words in SENTENCES]
    model = Word2Vec(sentences, sg=1, **SETTINGS)
    featurizer = featurizer_of(model, tmp_path / "words.model")
    (row,) = featurize(featurizer, [["('a', 3)"]]).hidden
    np.testing.assert_array_equal(row, model.wv[[("a", 3)]][0])


def test_more_words_than_a_text_may_have_are_refused(tmp_path):
    featurizer = featurizer_of(Word2Vec(SENTENCES, sg=0, **SETTINGS), tmp_path / "words.model")
    rows = featurize(featurizer, [["w1"] * (MAX_WORDS + 1), ["w" * 2**20, "w"], "w " * 2**20])
    assert sorted(rows.errors) == [0, 1, 2]


def test_missing_vectors_are_named_with_the_next_step(tmp_path):
    model = Word2Vec(SENTENCES, sg=0, **SETTINGS)
    model.save(str(tmp_path / "words.model"), sep_limit=0)
    (tmp_path / "words.model.wv.vectors.npy").unlink()
    with pytest.raises(SourceError, match=r"words.model.wv.vectors.npy beside it, .* --no-text$"):
        load(tmp_path / "words.model", "gensim", SourceOptions())
    assert load(tmp_path / "words.model", "gensim", SourceOptions(text=False)).featurizer is None
