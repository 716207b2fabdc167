"""The names that `hsoftmax.scoring` has for other packages."""

from .bundle_info import Facts
from .choices import LARGEST_SEED, NAMES, Name, Oov
from .errors import CallError, Code, Flaw, InputChanged, ScoringError, SpoiledShard
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
from .graph_request import Asked, Run, feeds
from .job.checkpoint import Shard
from .job.committer import Written
from .job.duplicate_ids import Survey, make_survey, read_survey
from .job.finalize import conclude, errors_of, sequences_of
from .job.output import Delivery
from .job.runner import Make, Progress, Report, carry_out, make_shard, run_job
from .job.shards import Cut, Start, cuts
from .job.spec import Order, fingerprint, make_order
from .job.workspace import Workspace, workspace_of
from .perplexity import Tally, tallies
from .results import Records, score
from .row_batch import Id, Reading, Rows, reading
from .task import Form, Task

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
