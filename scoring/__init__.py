"""Many rows at once: from a hidden matrix and targets to one record a row, and files of them."""

from .asked import Asked, Run, feeds
from .errors import CallError, Code, Flaw, ScoringError
from .facts import Facts
from .formats import find_format, find_inputs, open_inputs, parse_columns
from .job import Progress, run_job
from .order import Order, make_order
from .perplexity import Tally, tallies
from .records import Records, score
from .rows import Reading, Rows, reading
from .task import LARGEST_SEED, NAMES, Form, Name, Oov, Task

__all__ = [
    "LARGEST_SEED",
    "NAMES",
    "Asked",
    "CallError",
    "Code",
    "Facts",
    "Flaw",
    "Form",
    "Name",
    "Oov",
    "Order",
    "Progress",
    "Reading",
    "Records",
    "Rows",
    "Run",
    "ScoringError",
    "Tally",
    "Task",
    "feeds",
    "find_format",
    "find_inputs",
    "make_order",
    "open_inputs",
    "parse_columns",
    "reading",
    "run_job",
    "score",
    "tallies",
]
