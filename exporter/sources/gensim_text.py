"""Builds gensim's featurizer from the attributes of a pickled model.

Of each model the vectors are read as its training read them: for FastText those of words and of
n-grams apart, for Doc2Vec also those of documents. Models of gensim 4 have them all; of an older
one only Word2Vec's are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.featurizers import DenseMatrix, Featurizer, GensimFeaturizer, build_vocabulary
from hsoftmax.featurizers.gensim import Documents
from hsoftmax.featurizers.ngrams import Ngrams
from hsoftmax.models import UserError
from hsoftmax.models.arrays import Array, Float32, to_float32

from .gensim_files import extra_file_path
from .pickle_machine import PickledCall
from .pickled_arrays import is_array, numbers, objects
from .words import word_labels

Attributes = Mapping[str, Any]
ReadExtraFile = Callable[[Path], Array]

_VECTORS = ("vectors", "syn0")  # in the order of gensim's versions, the newest first
_WITHOUT_TEXT = "leave the text out with --no-text"


@dataclass(frozen=True)
class GensimText:
    """The featurizer of a model, or the reason why it has none, and the files that were read."""

    featurizer: Featurizer | None
    extra_files: tuple[Path, ...] = ()
    reason: str = ""


def read_text(
    path: Path, model: Attributes, labels: Sequence[str] | None, read_extra_file: ReadExtraFile
) -> GensimText:
    """Read the vectors of a model and build its featurizer.

    Raises:
        SourceError: vectors that are missing beside the model, or do not fit its words.
    """
    if labels is None:
        return GensimText(None, reason="its words are no text")
    if model.get("dm_concat"):
        return GensimText(None, reason="Doc2Vec with dm_concat=1 joins vectors of fixed places")
    arrays = _Arrays(path, read_extra_file)
    try:
        featurizer = _featurizer(model, labels, arrays)
    except UserError as error:
        raise SourceError(f"text: {error}: {_WITHOUT_TEXT}") from None
    if featurizer is None:
        return GensimText(None, reason="the file has no vectors of its words as gensim 4 has them")
    return GensimText(featurizer, tuple(arrays.extra_files))


class _Arrays:
    """Reads arrays of a model's parts, and lists the extra files that held them."""

    def __init__(self, path: Path, read_extra_file: ReadExtraFile) -> None:
        self.extra_files: list[Path] = []
        self._path = path
        self._read_extra_file = read_extra_file

    def read(self, part_name: str, part: Attributes, *names: str) -> Float32 | None:
        """Return the first of these arrays that the part has."""
        for name in names:
            if is_array(part.get(name)):
                return to_float32(name, numbers(name, part[name]))
            listed = part.get("__numpys")
            if isinstance(listed, list) and name in listed:
                extra_file = extra_file_path(self._path, f"{part_name}.{name}")
                self.extra_files.append(extra_file)
                return to_float32(name, self._read_extra_file(extra_file))
        return None


def _featurizer(model: Attributes, labels: Sequence[str], arrays: _Arrays) -> Featurizer | None:
    words = _state(model, "wv")
    vectors, ngrams = _word_vectors(words, len(labels), arrays)
    if vectors is None:
        return None
    documents = None
    if "dm_tag_count" in model:
        documents = _documents(_state(model, "dv"), arrays)
        if documents is None:
            return None
    return GensimFeaturizer(
        reads="word" if model.get("sg") else "context",
        combine="mean" if model.get("cbow_mean") else "sum",
        vocabulary=build_vocabulary([_encode(label) for label in labels]),
        vectors=DenseMatrix(vectors),
        ngrams=ngrams,
        documents=documents,
    )


def _word_vectors(
    words: Attributes, num_words: int, arrays: _Arrays
) -> tuple[Float32 | None, Ngrams | None]:
    """Return the vectors of words, and of FastText also those of the n-grams after them."""
    min_n, max_n, bucket = (words.get(name) for name in ("min_n", "max_n", "bucket"))
    if bucket is None:
        return arrays.read("wv", words, *_VECTORS), None
    if not words.get("compatible_hash"):
        return None, None
    of_words = arrays.read("wv", words, "vectors_vocab")
    of_ngrams = arrays.read("wv", words, "vectors_ngrams")
    if of_words is None or of_ngrams is None:
        return None, None
    if not all(type(value) is int and value >= 0 for value in (min_n, max_n, bucket)):
        raise SourceError("min_n, max_n, bucket: expected integers from 0, got others")
    if len(of_words) < num_words or of_words.ndim != 2 or of_ngrams.ndim != 2:
        raise SourceError(f"vectors_vocab: expected {num_words} rows, got {len(of_words)}")
    if of_words.shape[1] != of_ngrams.shape[1]:
        raise SourceError(
            f"vectors_ngrams: expected {of_words.shape[1]} columns, got {of_ngrams.shape[1]}"
        )
    assert isinstance(min_n, int)
    assert isinstance(max_n, int)
    if not max_n or not bucket:
        return of_words, None
    joined = np.concatenate([of_words[:num_words], of_ngrams])
    return joined, Ngrams(min_n, max_n, 0, bucket, num_words)


def _documents(documents: Attributes, arrays: _Arrays) -> Documents | None:
    """Return the tags and the vectors of documents; None in a file of an older gensim."""
    vectors = arrays.read("dv", documents, "vectors")
    if vectors is None or "index_to_key" not in documents:
        return None
    tags = word_labels(objects("dv: index_to_key", documents["index_to_key"]))
    return Documents(build_vocabulary([_encode(tag) for tag in tags]), DenseMatrix(vectors))


def _state(model: Attributes, name: str) -> Attributes:
    part = model.get(name)
    state = part.state if isinstance(part, PickledCall) else None
    return state if isinstance(state, dict) else {}


def _encode(label: str) -> bytes:
    return label.encode("utf-8", "surrogatepass")
