"""Each kind of featurizer can read its example."""

import pytest
from gensim.models import Doc2Vec, FastText, Word2Vec
from gensim.models.doc2vec import TaggedDocument

from hsoftmax.featurizers import example_input, featurize

from .test_fasttext import SUPERVISED, saved, supervised, text_file  # noqa: F401
from .test_gensim import SENTENCES, SETTINGS, featurizer_of

DOCUMENTS = [TaggedDocument(words, [f"d{i}"]) for i, words in enumerate(SENTENCES[:20])]
MODELS = {
    "cbow": lambda: Word2Vec(SENTENCES, sg=0, **SETTINGS),
    "skip-gram": lambda: Word2Vec(SENTENCES, sg=1, **SETTINGS),
    "n-grams": lambda: FastText(SENTENCES, sg=0, bucket=100, **SETTINGS),
    "documents and words": lambda: Doc2Vec(DOCUMENTS, dm=1, **SETTINGS),
    "documents": lambda: Doc2Vec(DOCUMENTS, dm=0, **SETTINGS),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_example_of_gensim_has_words_of_the_model(tmp_path, name):
    featurizer = featurizer_of(MODELS[name](), tmp_path / "some.model")
    example = example_input(featurizer)
    assert not isinstance(example, str)
    assert not featurize(featurizer, [example]).errors


def test_an_example_of_fasttext_is_a_text(supervised):  # noqa: F811
    _, featurizer = supervised
    example = example_input(featurizer)
    assert isinstance(example, str)
    assert not featurize(featurizer, [example]).errors


def test_a_tokenizer_reads_any_text():
    assert isinstance(example_input(None), str)
