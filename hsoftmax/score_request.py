"""What `hsoftmax score` is asked to do, in words that any machine of a cluster understands."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax import scoring


@dataclass(frozen=True)
class Call:
    """The parts of an order that can be sent; what None stands for follows from the bundle."""

    input: Path
    output: Path
    task: scoring.Task
    columns: scoring.Columns
    labelled: bool = False
    batch: int | None = None
    shard_rows: int | None = None


def open_order(call: Call, facts: scoring.Facts) -> scoring.Order:
    """The order, whose source is to be closed. Raises CallError."""
    files = scoring.find_inputs(call.input)
    format = scoring.find_format(call.output if call.output.suffix else files[0])
    source = scoring.open_inputs(files, call.columns, facts, labelled=call.labelled)
    try:
        return scoring.make_order(
            source, call.output, format, facts, call.task,
            columns=call.columns, labelled=call.labelled,
            batch=call.batch, shard_rows=call.shard_rows,
        )  # fmt: skip
    except scoring.CallError:
        source.close()
        raise
