"""The files of a featurizer in a bundle: `featurizer.json` describes it, `featurizer.bin` holds it.

`featurizer.bin` has the words and the input matrix in the layout of `weights.bin`, and is mapped
as that is. The description has a version: a change of a featurizer's numbers raises it, and a
reader refuses a version that it does not know.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hsoftmax import bundle
from hsoftmax.models import UserError
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.weights_guard import WeightsGuard

from .fasttext import FastTextFeaturizer, FastTextModel
from .featurizer import Featurizer
from .gensim import Documents, GensimCombine, GensimFeaturizer, GensimReads
from .matrix import DenseMatrix, Matrix, QuantizedMatrix
from .ngrams import Ngrams, PrunedBuckets
from .vocabulary import Vocabulary, load_vocabulary, vocabulary_arrays

DESCRIPTION = "featurizer.json"
FEATURES = "featurizer.bin"
_MAX_DESCRIPTION_BYTES = 2**20

Tensors = Mapping[str, Array]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    hidden_size: Count
    tensors: tuple[bundle.StoredTensor, ...] = ()


class FastTextDescription(_Description):
    """fastText's features.

    Attributes:
        words: words in the dictionary; labels follow them
        minn, maxn: lengths of n-grams of characters
        word_ngrams: the longest n-gram of words
        bucket: the number of buckets of n-grams
    """

    kind: Literal["fasttext"] = "fasttext"
    model: FastTextModel
    words: Count
    minn: Count
    maxn: Count
    word_ngrams: Count
    bucket: Count


class GensimDescription(_Description):
    """gensim's features.

    Attributes:
        min_n, max_n, bucket: n-grams of characters, of FastText only
        documents: True if a row begins with a document's tag
    """

    kind: Literal["gensim"] = "gensim"
    reads: GensimReads
    combine: GensimCombine
    min_n: Count = 0
    max_n: Count = 0
    bucket: Count = 0
    documents: bool = False


Description = Annotated[FastTextDescription | GensimDescription, Field(discriminator="kind")]
_DESCRIPTION: TypeAdapter[FastTextDescription | GensimDescription] = TypeAdapter(Description)


class FeaturizerError(bundle.BundleError):
    """The files of a featurizer cannot be read, or do not fit the bundle."""

    exit_code: ClassVar[int] = 1


def describe(
    featurizer: Featurizer, tensors: tuple[bundle.StoredTensor, ...]
) -> FastTextDescription | GensimDescription:
    """Return the description of a featurizer, whose tensors were written as `tensors` says."""
    if isinstance(featurizer, GensimFeaturizer):
        ngrams = featurizer.ngrams or Ngrams(0, 0, 0, 0, 0)
        return GensimDescription(
            hidden_size=featurizer.hidden_size,
            tensors=tensors,
            reads=featurizer.reads,
            combine=featurizer.combine,
            min_n=ngrams.min_chars,
            max_n=ngrams.max_chars,
            bucket=ngrams.buckets,
            documents=featurizer.documents is not None,
        )
    ngrams = featurizer.ngrams
    return FastTextDescription(
        hidden_size=featurizer.hidden_size,
        tensors=tensors,
        model=featurizer.model,
        words=featurizer.num_words,
        minn=ngrams.min_chars,
        maxn=ngrams.max_chars,
        word_ngrams=ngrams.max_words,
        bucket=ngrams.buckets,
    )


def featurizer_tensors(featurizer: Featurizer) -> dict[str, Array]:
    """Return the arrays of a featurizer by name, as `featurizer.bin` holds them; uint8 as int8."""
    tensors = _words_tensors("words", featurizer.vocabulary)
    if isinstance(featurizer, GensimFeaturizer):
        tensors |= _matrix_tensors("input", featurizer.vectors)
        if featurizer.documents is not None:
            tensors |= _words_tensors("documents", featurizer.documents.tags)
            tensors |= _matrix_tensors("documents", featurizer.documents.vectors)
        return tensors
    if (pruned := featurizer.ngrams.pruned) is not None:
        tensors |= {"pruned.bucket": pruned.bucket, "pruned.row": pruned.row}
    return tensors | _matrix_tensors("input", featurizer.matrix)


def open_featurizer(opened: bundle.Bundle) -> Featurizer | None:
    """Map the featurizer of a bundle, or return None if the bundle has none.

    Raises:
        BundleError: its files are damaged, or do not fit the bundle.
    """
    name = opened.manifest.featurizer
    if name is None:
        return None
    description = _read_description(opened, name)
    if FEATURES not in opened.manifest.files:
        raise FeaturizerError(f"{opened.path}: expected {FEATURES} beside {name}, got none")
    tensors = bundle.map_tensors(opened.file(FEATURES), description.tensors)
    try:
        featurizer = _build(description, tensors)
    except KeyError as error:
        raise FeaturizerError(f"{opened.file(name)}: expected tensor {error}, got none") from None
    except UserError as error:
        raise FeaturizerError(f"{opened.file(FEATURES)}: {error}") from None
    sizes = (opened.manifest.hidden_size, description.hidden_size, featurizer.hidden_size)
    if len(set(sizes)) > 1:
        raise FeaturizerError(
            f"{opened.file(name)}: expected vectors of the head's hidden_size {sizes[0]}, "
            f"got {sizes[2]}"
        )
    return replace(featurizer, guard=WeightsGuard(opened.file(FEATURES)))


def _read_description(opened: bundle.Bundle, name: str) -> FastTextDescription | GensimDescription:
    path = opened.file(name)
    with bundle.open_regular(path) as file:
        content = file.read(_MAX_DESCRIPTION_BYTES + 1)
    if len(content) > _MAX_DESCRIPTION_BYTES:
        raise FeaturizerError(f"{path}: expected at most {_MAX_DESCRIPTION_BYTES} bytes, got more")
    try:
        return _DESCRIPTION.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FeaturizerError(f"{path}: {where}: {first['msg']}") from None


def _build(description: FastTextDescription | GensimDescription, tensors: Tensors) -> Featurizer:
    """Build the featurizer. Raises KeyError for a missing tensor, UserError for a wrong one."""
    vocabulary = _words_of(tensors, "words")
    if isinstance(description, GensimDescription):
        ngrams = None
        if description.bucket:
            ngrams = Ngrams(
                description.min_n, description.max_n, 0, description.bucket, len(vocabulary)
            )
        documents = None
        if description.documents:
            documents = Documents(
                _words_of(tensors, "documents"), _dense(tensors, "documents.weight")
            )
        return GensimFeaturizer(
            description.reads, description.combine, vocabulary, _dense(tensors, "input.weight"),
            ngrams, documents,
        )  # fmt: skip
    ngrams = Ngrams(
        description.minn, description.maxn, description.word_ngrams, description.bucket,
        description.words, _pruned(tensors),
    )  # fmt: skip
    return FastTextFeaturizer(
        description.model, vocabulary, description.words, ngrams,
        _matrix(tensors, description.hidden_size),
    )  # fmt: skip


def _words_tensors(name: str, vocabulary: Vocabulary) -> dict[str, Array]:
    text, offsets, slots = vocabulary_arrays(vocabulary)
    return {f"{name}.text": text.view(np.int8), f"{name}.offsets": offsets, f"{name}.slots": slots}


def _words_of(tensors: Tensors, name: str) -> Vocabulary:
    text, offsets, slots = (
        _typed(tensors, f"{name}.{part}", dtype, 1)
        for part, dtype in (("text", "int8"), ("offsets", "int64"), ("slots", "int32"))
    )
    return load_vocabulary(name, text.view(np.uint8), offsets, slots)


def _matrix_tensors(name: str, matrix: Matrix) -> dict[str, Array]:
    if isinstance(matrix, DenseMatrix):
        return {f"{name}.weight": matrix.weight}
    tensors: dict[str, Array] = {}
    tensors |= {f"{name}.codes": matrix.codes.view(np.int8), f"{name}.centroids": matrix.centroids}
    if matrix.norm_codes is not None and matrix.norms is not None:
        tensors[f"{name}.norm_codes"] = matrix.norm_codes.view(np.int8)
        tensors[f"{name}.norms"] = matrix.norms
    return tensors


def _matrix(tensors: Tensors, columns: int) -> Matrix:
    if "input.weight" in tensors:
        return _dense(tensors, "input.weight")
    norms = "input.norms" in tensors
    return QuantizedMatrix(
        columns=columns,
        codes=_typed(tensors, "input.codes", "int8", 2).view(np.uint8),
        centroids=_typed(tensors, "input.centroids", "float32", 3),
        norm_codes=_typed(tensors, "input.norm_codes", "int8", 1).view(np.uint8) if norms else None,
        norms=_typed(tensors, "input.norms", "float32", 1) if norms else None,
    )


def _dense(tensors: Tensors, name: str) -> DenseMatrix:
    return DenseMatrix(_typed(tensors, name, "float32", 2))


def _pruned(tensors: Tensors) -> PrunedBuckets | None:
    if "pruned.bucket" not in tensors:
        return None
    bucket, row = (_typed(tensors, f"pruned.{name}", "int32", 1) for name in ("bucket", "row"))
    if len(bucket) != len(row) or (np.diff(bucket) <= 0).any() or (row < 0).any():
        raise FeaturizerError("pruned: expected ascending buckets and a row for each, got others")
    return PrunedBuckets(bucket, row)


def _typed(tensors: Tensors, name: str, dtype: str, axes: int) -> Array:
    array = tensors[name]
    if array.dtype.name != dtype or array.ndim != axes:
        raise FeaturizerError(
            f"{name}: expected {dtype} with {axes} axes, got {array.dtype.name} {list(array.shape)}"
        )
    return array
