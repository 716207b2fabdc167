"""The values that a model's options accept.

Help and completion of the command line read them. The module imports no library, so that neither
loads NumPy.
"""

from typing import Literal

Padding = Literal["mask", "theano"]
Compat = Literal["exact", "fasttext"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
