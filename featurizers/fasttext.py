"""fastText's features: words, n-grams of characters and of words, and their mean as `hidden`.

A supervised model reads a line with its end, the word `</s>`; of the words that it does not know it
reads the n-grams, and labels in the line are skipped. A CBOW model reads the context words of a
word. A skip-gram model reads one word, whose context it predicts. All take the mean of the input
rows of everything that was read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from hsoftmax.models import WeightsError
from hsoftmax.models.arrays import Float32, Int64
from hsoftmax.runtime.weights_guard import WeightsGuard

from .errors import TextError
from .limits import MAX_NGRAM
from .matrix import DenseMatrix, Matrix, QuantizedMatrix, sum_rows
from .ngrams import Ngrams, word_features, word_ngram_features
from .vocabulary import Vocabulary, vocabulary_arrays
from .words import TextInput, fasttext_line, fasttext_words

if TYPE_CHECKING:
    from hsoftmax.runtime.native import TextKernel

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
        guard: notices a change of the file that the arrays are mapped from; None if there is none
    """

    model: FastTextModel
    vocabulary: Vocabulary
    num_words: int
    ngrams: Ngrams
    matrix: Matrix
    guard: WeightsGuard | None = field(default=None, compare=False, repr=False)

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

    @cached_property
    def kernel(self) -> "TextKernel | None":
        """The native kernel of a supervised model, which computes the same bits, or None."""
        return open_kernel(self) if self.model == "supervised" else None


def _num_bucket_rows(ngrams: Ngrams) -> int:
    """Return the input rows that n-grams may have."""
    if ngrams.max_chars <= 0 and ngrams.max_words <= 1:
        return 0
    if ngrams.pruned is None:
        return ngrams.buckets
    return int(ngrams.pruned.row.max(initial=-1)) + 1


def numpy_hidden(
    featurizer: FastTextFeaturizer, rows: Sequence[TextInput]
) -> Iterator[Float32 | TextError]:
    """Yield the hidden vector of each row, or its error, computed by NumPy."""
    parsed = [_parse(featurizer, row) for row in rows]
    words = [word for one in parsed for word in one.words]
    numbers = [number for one in parsed for number in one.numbers]
    whole = [word == _LINE_END for word in words]
    features, counts = word_features(words, numbers, whole, featurizer.ngrams)
    ends = np.cumsum([0, *(len(one.words) for one in parsed)])
    feature_ends = np.concatenate([[0], np.cumsum(counts)])[ends]
    for one, (start, end) in zip(parsed, pairwise(feature_ends.tolist()), strict=True):
        yield one.error or _hidden(featurizer, one, features[start:end])


def native_hidden(
    kernel: "TextKernel", rows: Sequence[TextInput]
) -> tuple[Float32, dict[int, TextError]]:
    """Return the hidden vectors of rows and the rows' errors, computed by the native kernel."""
    lines: list[bytes] = []
    errors: dict[int, TextError] = {}
    for i, row in enumerate(rows):
        try:
            lines.append(fasttext_line(row))
        except TextError as error:
            lines.append(b"")
            errors[i] = error
    hidden, counts = kernel(lines)
    if 0 in counts:
        empty = {i: nothing_known() for i, count in enumerate(counts) if not count}
        errors = {**empty, **errors}
    if errors:
        hidden[list(errors)] = 0
    return hidden, errors


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
        return nothing_known()
    return sum_rows(featurizer.matrix, features) * np.float32(1.0 / len(features))


def nothing_known() -> TextError:
    return TextError(
        "expected a word, or a part of one, that the model knows, got none: "
        "send text in the words of the model's training"
    )


def open_kernel(featurizer: FastTextFeaturizer) -> "TextKernel | None":
    """Return the native kernel over the featurizer's arrays where they lie, or None.

    There is none without the native library, and for arrays that are not aligned, as those of a
    model file are.
    """
    try:
        from hsoftmax.runtime.native import NativeError, TextArrays, TextKernel, load_library
    except ImportError:  # cffi is not part of the smallest installation
        return None
    library = load_library()
    if isinstance(library, str):
        return None
    text, offsets, slots = vocabulary_arrays(featurizer.vocabulary)
    ngrams, matrix = featurizer.ngrams, featurizer.matrix
    quantised = matrix if isinstance(matrix, QuantizedMatrix) else None
    arrays = TextArrays(
        text=text,
        offsets=offsets,
        slots=slots,
        words=featurizer.num_words,
        min_chars=ngrams.min_chars,
        max_chars=ngrams.max_chars,
        max_words=ngrams.max_words,
        buckets=ngrams.buckets,
        pruned=None if ngrams.pruned is None else (ngrams.pruned.bucket, ngrams.pruned.row),
        shape=matrix.shape,
        weight=matrix.weight if isinstance(matrix, DenseMatrix) else None,
        codes=None if quantised is None else quantised.codes,
        centroids=None if quantised is None else quantised.centroids,
        norm_codes=None if quantised is None else quantised.norm_codes,
        norms=None if quantised is None else quantised.norms,
    )
    try:
        return TextKernel(library, arrays)
    except NativeError:
        return None
