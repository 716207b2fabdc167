"""fastText's features: words, n-grams of characters and of words, and their mean as `hidden`.

A supervised model reads a line with its end, the word `</s>`; of the words that it does not know it
reads the n-grams, and labels in the line are skipped. A CBOW model reads the context words of a
word. A skip-gram model reads one word, whose context it predicts. All take the mean of the input
rows of everything that was read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from hsoftmax.models import WeightsError
from hsoftmax.models.arrays import Float32, Int64

from .errors import TextError
from .limits import MAX_NGRAM
from .matrix import Matrix, sum_rows
from .ngrams import Ngrams, word_features, word_ngram_features
from .vocabulary import Vocabulary
from .words import TextInput, fasttext_words

FastTextModel = Literal["supervised", "cbow", "skipgram"]
FASTTEXT_MODELS: tuple[FastTextModel, ...] = get_args(FastTextModel)

_LINE_END = b"</s>"
_LABEL = b"__label__"  # fastText's files do not hold another prefix that was trained with


@dataclass(frozen=True)
class FastTextFeaturizer:
    """The dictionary and the input matrix of a fastText model.

    Attributes:
        vocabulary: the words, then the labels
        num_words: the number of words; the labels have no input row
    """

    model: FastTextModel
    vocabulary: Vocabulary
    num_words: int
    ngrams: Ngrams
    matrix: Matrix

    def __post_init__(self) -> None:
        ngrams = self.ngrams
        for name, value in (("maxn", ngrams.max_chars), ("word_ngrams", ngrams.max_words)):
            if not 0 <= value <= MAX_NGRAM:
                raise WeightsError(f"{name}: expected 0 to {MAX_NGRAM}, got {value}")
        if not 0 <= self.num_words <= len(self.vocabulary):
            raise WeightsError(
                f"words: expected at most {len(self.vocabulary)}, got {self.num_words}"
            )
        if not ngrams.buckets and (ngrams.max_chars > 0 or ngrams.max_words > 1):
            raise WeightsError("bucket: expected at least 1 for n-grams, got 0")
        needed = self.num_words + _num_bucket_rows(ngrams)
        if self.matrix.shape[0] < needed:
            raise WeightsError(f"input: expected {needed} rows, got {self.matrix.shape[0]}")

    @property
    def hidden_size(self) -> int:
        return self.matrix.shape[1]


def _num_bucket_rows(ngrams: Ngrams) -> int:
    """Return the input rows that n-grams may have."""
    if ngrams.max_chars <= 0 and ngrams.max_words <= 1:
        return 0
    if ngrams.pruned is None:
        return ngrams.buckets
    return int(ngrams.pruned.row.max(initial=-1)) + 1


def fasttext_hidden(
    featurizer: FastTextFeaturizer, rows: Sequence[TextInput]
) -> Iterator[Float32 | TextError]:
    """Yield the hidden vector of each row, or its error."""
    parsed = [_parse(featurizer, row) for row in rows]
    words = [word for one in parsed for word in one.words]
    numbers = [number for one in parsed for number in one.numbers]
    whole = [word == _LINE_END for word in words]
    features, counts = word_features(words, numbers, whole, featurizer.ngrams)
    ends = np.cumsum([0, *(len(one.words) for one in parsed)])
    feature_ends = np.concatenate([[0], np.cumsum(counts)])[ends]
    for one, (start, end) in zip(parsed, pairwise(feature_ends.tolist()), strict=True):
        yield one.error or _hidden(featurizer, one, features[start:end])


@dataclass(frozen=True)
class _ParsedText:
    """The words of a row, and the number of each, -1 for unknown ones."""

    words: Sequence[bytes] = ()
    numbers: Sequence[int] = ()
    error: TextError | None = None


def _parse(featurizer: FastTextFeaturizer, row: TextInput) -> _ParsedText:
    try:
        words = fasttext_words(row)
    except TextError as error:
        return _ParsedText(error=error)
    supervised = featurizer.model == "supervised"
    if supervised:
        words.append(_LINE_END)
    if _LINE_END in words:
        del words[words.index(_LINE_END) + 1 :]
    if featurizer.model == "skipgram" and len(words) != 1:
        return _ParsedText(
            error=TextError(
                f"expected one word, whose context the skip-gram model predicts, got {len(words)}: "
                "send each word as an input of its own"
            )
        )
    find = featurizer.vocabulary.find
    numbered = [(word, find(word)) for word in words]
    kept = [(word, n) for word, n in numbered if _is_word(word, n, featurizer.num_words)]
    return _ParsedText([word for word, _ in kept], [n for _, n in kept])


def _is_word(word: bytes, number: int, num_words: int) -> bool:
    """Return False for a label, known or not."""
    return number < num_words if number >= 0 else not word.startswith(_LABEL)


def _hidden(
    featurizer: FastTextFeaturizer, text: _ParsedText, features: Int64
) -> Float32 | TextError:
    if featurizer.model == "supervised":
        of_word_ngrams = word_ngram_features(text.words, featurizer.ngrams)
        if len(of_word_ngrams):
            features = np.concatenate([features, of_word_ngrams])
    if not len(features):
        return TextError(
            "expected a word, or a part of one, that the model knows, got none: "
            "send text in the words of the model's training"
        )
    return sum_rows(featurizer.matrix, features) * np.float32(1.0 / len(features))
