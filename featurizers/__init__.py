"""Turns text into `hidden` exactly as a model was trained: fastText's and gensim's features.

The exporter writes a featurizer beside the head of a bundle. The service and the scoring package
open it and run it in front of the graphs, whose inputs stay as they are.
"""

from .errors import TextError
from .example import example_input
from .fasttext import FastTextFeaturizer
from .featurizer import FeaturizedRows, Featurizer, featurize, input_kinds
from .files import (
    DESCRIPTION,
    FEATURES,
    describe,
    featurizer_tensors,
    open_featurizer,
)
from .gensim import GensimFeaturizer
from .limits import MAX_NGRAM, MAX_TEXT_BYTES, MAX_WORDS
from .matrix import DenseMatrix, QuantizedMatrix
from .vocabulary import Vocabulary, build_vocabulary
from .words import TextInput

__all__ = [
    "DESCRIPTION",
    "FEATURES",
    "MAX_NGRAM",
    "MAX_TEXT_BYTES",
    "MAX_WORDS",
    "DenseMatrix",
    "FastTextFeaturizer",
    "FeaturizedRows",
    "Featurizer",
    "GensimFeaturizer",
    "QuantizedMatrix",
    "TextError",
    "TextInput",
    "Vocabulary",
    "build_vocabulary",
    "describe",
    "example_input",
    "featurize",
    "featurizer_tensors",
    "input_kinds",
    "open_featurizer",
]
