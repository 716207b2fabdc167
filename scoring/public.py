"""The public names of `hsoftmax.scoring`, for other packages."""

from .bundle_info import BundleInfo
from .choices import MAX_SEED, TASK_NAMES, OovPolicy, TaskName
from .errors import (
    CallError,
    CorruptShard,
    ErrorCode,
    InputChanged,
    RowError,
    RowsRefused,
    ScoringError,
)
from .failures import Failures, total_failure
from .formats import (
    EXTENSIONS,
    OUTPUT_EXTENSIONS,
    Columns,
    Position,
    RecordSchema,
    RowReader,
    detect_columns,
    extension_of,
    find_format,
    find_inputs,
    open_inputs,
    output_extension,
    parse_columns,
)
from .graph_request import GraphRequest, GraphRunner, graph_inputs, halves, needs_graph
from .job.checkpoint import Shard
from .job.committer import WrittenShard
from .job.duplicate_ids import (
    DuplicateIds,
    duplicate_errors,
    find_duplicate_ids,
    read_duplicate_ids,
)
from .job.finalize import begun_identity, errors_path, finalize_partial, sequences_path
from .job.output import OutputSpec
from .job.runner import (
    PartScorer,
    PositionCallback,
    ProgressCallback,
    ScoredPart,
    ShardPart,
    ShardProducer,
    make_shard,
    run_job,
    run_job_by,
    run_job_with,
    score_part,
)
from .job.shards import ShardRange, ShardStart, shard_ranges
from .job.spec import JobSpec, build_job_spec, fingerprint
from .job.workspace import Workspace, remove_temp_files, workspace_path
from .perplexity import Tally, tally_sequences
from .requirements import RowId, RowRequirements, row_requirements
from .results import RowResults, score_rows
from .row_batch import RowBatch
from .task import TargetShape, Task

__all__ = [
    "EXTENSIONS",
    "MAX_SEED",
    "OUTPUT_EXTENSIONS",
    "TASK_NAMES",
    "BundleInfo",
    "CallError",
    "Columns",
    "CorruptShard",
    "DuplicateIds",
    "ErrorCode",
    "Failures",
    "GraphRequest",
    "GraphRunner",
    "InputChanged",
    "JobSpec",
    "OovPolicy",
    "OutputSpec",
    "PartScorer",
    "Position",
    "PositionCallback",
    "ProgressCallback",
    "RecordSchema",
    "RowBatch",
    "RowError",
    "RowId",
    "RowReader",
    "RowRequirements",
    "RowResults",
    "RowsRefused",
    "ScoredPart",
    "ScoringError",
    "Shard",
    "ShardPart",
    "ShardProducer",
    "ShardRange",
    "ShardStart",
    "Tally",
    "TargetShape",
    "Task",
    "TaskName",
    "Workspace",
    "WrittenShard",
    "begun_identity",
    "build_job_spec",
    "detect_columns",
    "duplicate_errors",
    "errors_path",
    "extension_of",
    "finalize_partial",
    "find_duplicate_ids",
    "find_format",
    "find_inputs",
    "fingerprint",
    "graph_inputs",
    "halves",
    "make_shard",
    "needs_graph",
    "open_inputs",
    "output_extension",
    "parse_columns",
    "read_duplicate_ids",
    "remove_temp_files",
    "row_requirements",
    "run_job",
    "run_job_by",
    "run_job_with",
    "score_part",
    "score_rows",
    "sequences_path",
    "shard_ranges",
    "tally_sequences",
    "total_failure",
    "workspace_path",
]
