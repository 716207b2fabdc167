"""The values that a scoring job's options accept.

Help and completion of the command line read them. The module imports no library, so that neither
loads NumPy.
"""

from typing import Literal, get_args

TaskName = Literal[
    "target_log_prob", "probabilities", "top_k", "log_probs", "sample", "perplexity", "hidden"
]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
OovPolicy = Literal["error", "exclude"]

DEFAULT_K = 10  # targets of `top_k`, if the bundle has as many
MAX_SEED = 2**53 - 1  # the largest integer that JSON clients read exactly
