"""The messages between the driver and the nodes: bytes in a table of one row."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hsoftmax import scoring
from hsoftmax.score_request import ScoreRequest
from hsoftmax.scoring import Failures, RowId, Shard, ShardRange, Tally, WrittenShard


@dataclass(frozen=True)
class RayJob:
    """A job as a node needs it; the node's own specification must have the same `identity`.

    Attributes:
        check_hashes: True if each node compares the hashes of the bundle's files as it sees them
    """

    bundle: Path
    request: ScoreRequest
    identity: Mapping[str, Any]
    check_hashes: bool = True


@dataclass(frozen=True, slots=True)
class ShardMessage:
    """A `WrittenShard` that can be sent: its file's name without the folder."""

    temp_name: str
    shard: Shard
    tallies: list[tuple[RowId, Tally]]
    error_records: list[str]
    failures: dict[str, Failures]

    @classmethod
    def of(cls, written: WrittenShard) -> "ShardMessage":
        return cls(
            temp_name=written.temp_path.name,
            shard=written.shard,
            tallies=list(written.tallies.items()),
            error_records=list(written.error_records),
            failures=dict(written.failures),
        )

    def on_this_machine(self, workspace: scoring.Workspace) -> WrittenShard:
        """Returns the shard with its path on this machine."""
        return WrittenShard(
            temp_path=workspace.path / self.temp_name,
            shard=self.shard,
            tallies=dict(self.tallies),
            error_records=self.error_records,
            failures=self.failures,
        )


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """The outcome of a shard range on a node: a written shard, or an error."""

    node: str
    written: ShardMessage | None = None
    error: str = ""
    exit_code: int = 1


_encode = msgspec.msgpack.Encoder().encode
_range_decoder = msgspec.msgpack.Decoder(ShardRange | None)
_outcome_decoder = msgspec.msgpack.Decoder(ShardOutcome | None)


def message_table(
    shard_range: ShardRange | None = None, outcome: ShardOutcome | None = None
) -> pa.Table:
    """Returns a table of one row: a range to be made, or the outcome of one."""
    return pa.table({"range": [_encode(shard_range)], "outcome": [_encode(outcome)]})


def range_of(row: pa.Table) -> ShardRange | None:
    """Returns the range in a table of one row, or None if it holds an outcome."""
    shard_range: ShardRange | None = _range_decoder.decode(row["range"][0].as_py())
    return shard_range


def outcomes_of(rows: pa.Table) -> list[ShardOutcome]:
    """Returns the outcomes in a table."""
    outcomes = map(_outcome_decoder.decode, rows["outcome"].to_pylist())
    return [outcome for outcome in outcomes if outcome is not None]
