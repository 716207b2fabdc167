"""Builds fastText's featurizer from a model's dictionary, buckets and input matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.featurizers import FastTextFeaturizer, build_vocabulary
from hsoftmax.featurizers.fasttext import FASTTEXT_MODELS
from hsoftmax.featurizers.matrix import Matrix
from hsoftmax.featurizers.ngrams import Ngrams, PrunedBuckets
from hsoftmax.models import UserError
from hsoftmax.models.tree_paths import Int32


@dataclass(frozen=True)
class TextParts:
    """The parts of a model file that turn text into `hidden`.

    Attributes:
        model: supervised, cbow or skipgram
        entries: the words, then the labels, as bytes
        arguments: the model's arguments by fastText's names
        pruned: (bucket, new number) of a pruned model, else None
    """

    model: str
    entries: Sequence[bytes]
    num_words: int
    arguments: dict[str, int]
    pruned: Int32 | None
    matrix: Matrix


def build_featurizer(parts: TextParts) -> FastTextFeaturizer:
    """Build the featurizer. Raises SourceError for parts that do not fit together."""
    model = next(model for model in FASTTEXT_MODELS if model == parts.model)
    arguments = parts.arguments
    ngrams = Ngrams(
        min_chars=max(0, arguments["minn"]),
        max_chars=max(0, arguments["maxn"]),
        max_words=arguments["wordNgrams"] if model == "supervised" else 0,
        buckets=max(0, arguments["bucket"]),
        first_row=parts.num_words,
        pruned=None if parts.pruned is None else _pruned(parts.pruned),
    )
    vocabulary = build_vocabulary(parts.entries)
    try:
        return FastTextFeaturizer(model, vocabulary, parts.num_words, ngrams, parts.matrix)
    except UserError as error:
        raise SourceError(f"text: {error}: leave the text out with --no-text") from None


def _pruned(pairs: Int32) -> PrunedBuckets:
    """Return the pairs by ascending bucket."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    if (np.diff(pairs[:, 0]) <= 0).any() or (pairs[:, 1] < 0).any():
        raise SourceError("dictionary: pruned: expected distinct buckets with a row, got others")
    return PrunedBuckets(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))
