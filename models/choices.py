"""The words that a user chooses among for a model.

Help and completion of the command line read them here. Nothing else is imported, so that both need
neither NumPy nor the time to load it.
"""

from typing import Literal

Padding = Literal["mask", "theano"]
Compat = Literal["exact", "fasttext"]
Precision = Literal["fp32", "fp16", "int8"]
