"""What the driver and the nodes tell each other: a row of bytes in a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hsoftmax import scoring
from hsoftmax.score_request import ScoreRequest
from hsoftmax.scoring import RowId, Shard, ShardRange, Tally, WrittenShard


@dataclass(frozen=True)
class RayJob:
    """All that a node has to know of the job; `identity` is what its own order has to be."""

    bundle: Path
    call: ScoreRequest
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MadeShard:
    """A shard that a node has written, apart from the name of its file's folder."""

    aside: str
    shard: Shard
    tallies: list[tuple[RowId, Tally]]
    error_records: list[str]

    @classmethod
    def of(cls, written: WrittenShard) -> "MadeShard":
        return cls(
            written.aside.name,
            written.shard,
            list(written.tallies.items()),
            list(written.error_records),
        )

    def written(self, workspace: scoring.Workspace) -> WrittenShard:
        return WrittenShard(
            workspace.path / self.aside, self.shard, dict(self.tallies), self.error_records
        )


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """What became of a cut: what was made of it, or why it could not be."""

    node: str
    made: MadeShard | None = None
    error: str = ""
    exit_code: int = 1


_encode = msgspec.msgpack.Encoder().encode
_cut = msgspec.msgpack.Decoder(ShardRange | None)
_outcome = msgspec.msgpack.Decoder(ShardOutcome | None)


def message_table(
    shard_range: ShardRange | None = None, outcome: ShardOutcome | None = None
) -> pa.Table:
    """One row, as it travels: what is to be done, or what became of it."""
    return pa.table({"cut": [_encode(shard_range)], "outcome": [_encode(outcome)]})


def range_of(row: pa.Table) -> ShardRange | None:
    shard_range: ShardRange | None = _cut.decode(row["cut"][0].as_py())
    return shard_range


def outcomes_of(rows: pa.Table) -> list[ShardOutcome]:
    """Of rows that have come back, each with its outcome."""
    found = map(_outcome.decode, rows["outcome"].to_pylist())
    return [outcome for outcome in found if outcome is not None]
