"""The values that an export's options accept.

Help and completion of the command line read them. The module imports no library, so that both list
every source without the library that reads it.
"""

from typing import Literal

AUTO = "auto"
SOURCE_NAMES = (
    "theano",
    "two-level",
    "levels",
    "pytorch",
    "transformer-xl",
    "fairseq",
    "theanolm",
    "huffman",
    "fasttext",
    "gensim",
    "chainer",
    "paddle",
    "tree",
    "sparse-block-dot",
)
ClusterOrder = Literal["ascending", "reversed"]
EncoderPosition = Literal["first", "last", "each"]
