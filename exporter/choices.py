"""The words that a user chooses among for an export.

Help and completion of the command line read them here. Nothing else is imported, so that both list
every source without the libraries that read it.
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
    "sparse-block-dot",
)
ClusterOrder = Literal["ascending", "reversed"]
