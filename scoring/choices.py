"""The words and bounds that a user chooses within for a scoring job.

Help and completion of the command line read them here. Nothing else is imported, so that both need
neither NumPy nor the time to load it.
"""

from typing import Literal, get_args

Name = Literal["target_log_prob", "probabilities", "top_k", "log_probs", "sample", "perplexity"]
NAMES: tuple[Name, ...] = get_args(Name)
Oov = Literal["error", "exclude"]

LARGEST_SEED = 2**53 - 1  # what JSON carries through every client unharmed
