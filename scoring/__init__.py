"""Many rows at once: from a hidden matrix and targets to one record a row, and files of them."""

from .asked import Asked, Run, feeds
from .delivery import Delivery
from .errors import CallError, Code, Flaw, InputChanged, ScoringError, SpoiledShard
from .facts import Facts
from .finish import conclude, errors_of, sequences_of
from .formats import (
    EXTENSIONS,
    Columns,
    Layout,
    Position,
    Source,
    find_format,
    find_inputs,
    open_inputs,
    parse_columns,
    recognise,
)
from .job import Make, Progress, Report, carry_out, make_shard, run_job
from .ledger import Shard
from .order import Order, fingerprint, make_order
from .perplexity import Tally, tallies
from .records import Records, score
from .rows import Id, Reading, Rows, reading
from .settling import Written
from .shards import Cut, Start, cuts
from .survey import Survey, make_survey, read_survey
from .task import LARGEST_SEED, NAMES, Form, Name, Oov, Task
from .workspace import Workspace, workspace_of

__all__ = [
    "EXTENSIONS",
    "LARGEST_SEED",
    "NAMES",
    "Asked",
    "CallError",
    "Code",
    "Columns",
    "Cut",
    "Delivery",
    "Facts",
    "Flaw",
    "Form",
    "Id",
    "InputChanged",
    "Layout",
    "Make",
    "Name",
    "Oov",
    "Order",
    "Position",
    "Progress",
    "Reading",
    "Records",
    "Report",
    "Rows",
    "Run",
    "ScoringError",
    "Shard",
    "Source",
    "SpoiledShard",
    "Start",
    "Survey",
    "Tally",
    "Task",
    "Workspace",
    "Written",
    "carry_out",
    "conclude",
    "cuts",
    "errors_of",
    "feeds",
    "find_format",
    "find_inputs",
    "fingerprint",
    "make_order",
    "make_shard",
    "make_survey",
    "open_inputs",
    "parse_columns",
    "read_survey",
    "reading",
    "recognise",
    "run_job",
    "score",
    "sequences_of",
    "tallies",
    "workspace_of",
]
