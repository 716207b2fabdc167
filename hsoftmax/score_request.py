"""The request of `hsoftmax score`, in a form that can be sent to any machine of a cluster."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax import scoring


@dataclass(frozen=True)
class ScoreRequest:
    """The parts of a job's specification that can be sent; None lets the bundle decide."""

    input: Path
    output: Path
    task: scoring.Task
    columns: scoring.Columns
    labelled: bool = False
    batch: int | None = None
    shard_rows: int | None = None


def open_job_spec(request: ScoreRequest, bundle_info: scoring.BundleInfo) -> scoring.JobSpec:
    """Opens the input and builds the job's specification; the caller closes its reader.

    Raises:
        CallError: the input, the output or the bundle does not fit the task.
    """
    files = scoring.find_inputs(request.input)
    # A folder's files have the format of the input, without its compression.
    input_format = files[0].with_name(f"part{scoring.output_extension(files[0])}")
    format = scoring.find_format(request.output if request.output.suffix else input_format)
    reader = scoring.open_inputs(files, request.columns, bundle_info, labelled=request.labelled)
    try:
        return scoring.build_job_spec(
            reader, request.output, format, bundle_info, request.task,
            columns=request.columns, labelled=request.labelled,
            batch=request.batch, shard_rows=request.shard_rows,
        )  # fmt: skip
    except scoring.CallError:
        reader.close()
        raise
