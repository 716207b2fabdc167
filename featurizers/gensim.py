"""gensim's features: of context words the mean or the sum, of one word its vector.

| model | reads | `hidden` |
|---|---|---|
| Word2Vec, CBOW | the context words | mean or sum of their vectors |
| Word2Vec, skip-gram | one word | its vector |
| FastText | as Word2Vec | the same over the vectors of words and of their n-grams |
| Doc2Vec, DM | a document's tag, then the context words | mean or sum of their vectors |
| Doc2Vec, DBOW | a document's tag | its vector |

Words that the model does not know are left out, as in its training. gensim's FastText reads the
n-grams of such words. Its skip-gram divides the sum by the number of n-grams, without the word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from hsoftmax.models import WeightsError
from hsoftmax.models.arrays import Float32, Int64
from hsoftmax.runtime.weights_guard import WeightsGuard

from .errors import TextError
from .limits import MAX_NGRAM
from .matrix import DenseMatrix, sum_rows
from .ngrams import Ngrams, word_features
from .vocabulary import Vocabulary
from .words import TextInput, gensim_words

GensimReads = Literal["context", "word"]
GensimCombine = Literal["mean", "sum"]
GENSIM_READS: tuple[GensimReads, ...] = get_args(GensimReads)

_MAX_SHOWN_CHARS = 60


@dataclass(frozen=True)
class Documents:
    """The tags of Doc2Vec's documents and their vectors."""

    tags: Vocabulary
    vectors: DenseMatrix


@dataclass(frozen=True)
class GensimFeaturizer:
    """The words of a gensim model and their vectors.

    Attributes:
        reads: context words, or one word
        combine: how the vectors of a context become one
        vectors: those of the words; after them those of n-grams, if there are `ngrams`
        documents: of Doc2Vec, whose rows begin with a document's tag
        guard: notices a change of the file that the arrays are mapped from; None if there is none
    """

    reads: GensimReads
    combine: GensimCombine
    vocabulary: Vocabulary
    vectors: DenseMatrix
    ngrams: Ngrams | None = None
    documents: Documents | None = None
    guard: WeightsGuard | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        needed = len(self.vocabulary)
        if self.ngrams is not None:
            if not 0 <= self.ngrams.max_chars <= MAX_NGRAM:
                raise WeightsError(f"max_n: expected 0 to {MAX_NGRAM}, got {self.ngrams.max_chars}")
            if not self.ngrams.buckets:
                raise WeightsError("bucket: expected at least 1 for n-grams, got 0")
            needed += self.ngrams.buckets
        if self.vectors.shape[0] < needed:
            raise WeightsError(f"vectors: expected {needed} rows, got {self.vectors.shape[0]}")
        if (documents := self.documents) is not None:
            wanted = (len(documents.tags), self.hidden_size)
            if documents.vectors.shape != wanted:
                raise WeightsError(
                    f"documents: expected {list(wanted)}, got {list(documents.vectors.shape)}"
                )

    @property
    def hidden_size(self) -> int:
        return self.vectors.shape[1]


def gensim_hidden(
    featurizer: GensimFeaturizer, rows: Sequence[TextInput]
) -> Iterator[Float32 | TextError]:
    """Yield the hidden vector of each row, or its error."""
    for row in rows:
        try:
            yield _hidden(featurizer, gensim_words(row))
        except TextError as error:
            yield error


def _hidden(featurizer: GensimFeaturizer, words: list[bytes]) -> Float32:
    """Return the hidden vector of one row. Raises TextError."""
    tag_vector = None
    if (documents := featurizer.documents) is not None:
        tag_vector = _tag_vector(documents, words)
        words = words[1:]
    if featurizer.reads == "word":
        if tag_vector is not None:
            return _alone(tag_vector, words)
        if len(words) != 1:
            raise TextError(
                f"expected one word, whose context the skip-gram model predicts, got {len(words)}: "
                "send each word as an input of its own"
            )
    features, known = _features(featurizer, words)
    if not len(features) and tag_vector is None:
        raise _unknown(words)
    total, count = sum_rows(featurizer.vectors, features), len(features)
    if tag_vector is not None:
        total, count = total + tag_vector, count + 1
    if featurizer.reads == "word" and featurizer.ngrams is not None:
        count = max(1, count - known)  # gensim counts the n-grams alone
    if featurizer.reads == "context" and featurizer.combine == "sum":
        return total
    mean: Float32 = total * (np.float32(1) / np.float32(count))
    return mean


def _features(featurizer: GensimFeaturizer, words: list[bytes]) -> tuple[Int64, int]:
    """Return (the rows of the words that the model knows, the number of those words)."""
    numbers = [featurizer.vocabulary.find(word) for word in words]
    known = sum(number >= 0 for number in numbers)
    if featurizer.ngrams is None:
        return np.array([n for n in numbers if n >= 0], dtype=np.int64), known
    features, _ = word_features(words, numbers, [False] * len(words), featurizer.ngrams)
    return features, known


def _tag_vector(documents: Documents, words: list[bytes]) -> Float32:
    if not words:
        raise TextError("expected a document's tag before the words, got nothing")
    number = documents.tags.find(words[0])
    if number < 0:
        raise TextError(
            f"expected a document's tag before the words, got {_shown(words[0])}, which is none "
            "of the model's"
        )
    vector: Float32 = documents.vectors.rows(np.array([number]))[0]
    return vector


def _alone(tag_vector: Float32, words: list[bytes]) -> Float32:
    if words:
        raise TextError(
            f"expected a document's tag alone, as the model reads no words, got {len(words)} words "
            "after it"
        )
    return tag_vector


def _unknown(words: list[bytes]) -> TextError:
    if not words:
        return TextError("expected words, got none")
    shown = _shown(words[0]) if len(words) == 1 else f"{len(words)} that it does not know"
    return TextError(
        f"expected a word that the model knows, got {shown}: "
        "send words as they are in the model's training"
    )


def _shown(word: bytes) -> str:
    return repr(word.decode("utf-8", "replace")[:_MAX_SHOWN_CHARS])
