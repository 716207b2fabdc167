"""What `hsoftmax score` is asked to do, in words that any machine of a cluster understands."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax import scoring


@dataclass(frozen=True)
class ScoreRequest:
    """The parts of an order that can be sent; what None stands for follows from the bundle."""

    input: Path
    output: Path
    task: scoring.Task
    columns: scoring.Columns
    labelled: bool = False
    batch: int | None = None
    shard_rows: int | None = None


def open_job_spec(call: ScoreRequest, bundle_info: scoring.BundleInfo) -> scoring.JobSpec:
    """The order, whose source is to be closed. Raises CallError."""
    files = scoring.find_inputs(call.input)
    format = scoring.find_format(call.output if call.output.suffix else files[0])
    reader = scoring.open_inputs(files, call.columns, bundle_info, labelled=call.labelled)
    try:
        return scoring.build_job_spec(
            reader, call.output, format, bundle_info, call.task,
            columns=call.columns, labelled=call.labelled,
            batch=call.batch, shard_rows=call.shard_rows,
        )  # fmt: skip
    except scoring.CallError:
        reader.close()
        raise
