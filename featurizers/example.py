"""Makes an input that a featurizer can read, for the examples of the API and its pages."""

from itertools import islice

from .fasttext import FastTextFeaturizer
from .featurizer import Featurizer
from .vocabulary import Vocabulary
from .words import TextInput

_TEXT = "hello world"  # n-grams and the line's end make an input of words that are not known
_MAX_WORDS = 3
_MAX_TRIED = 100  # words, of which some may not be UTF-8


def example_input(featurizer: Featurizer | None) -> TextInput:
    """Return a text, or words of the model where it reads only those.

    None stands for a tokenizer, which reads any text.
    """
    if featurizer is None:
        return _TEXT
    if isinstance(featurizer, FastTextFeaturizer):
        if featurizer.model == "supervised":
            return _TEXT
        return _words(featurizer.vocabulary, 1 if featurizer.model == "skipgram" else _MAX_WORDS)
    tag = [] if featurizer.documents is None else _words(featurizer.documents.tags, 1)
    if tag and featurizer.reads == "word":
        return tag
    count = 1 if featurizer.reads == "word" else _MAX_WORDS
    return tag + _words(featurizer.vocabulary, count)


def _words(vocabulary: Vocabulary, count: int) -> list[str]:
    """Return the first words of the vocabulary that are UTF-8."""
    tried = (vocabulary.word(i) for i in range(min(_MAX_TRIED, len(vocabulary))))
    return [word.decode() for word in islice(filter(_is_utf8, tried), count)]


def _is_utf8(word: bytes) -> bool:
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return True
