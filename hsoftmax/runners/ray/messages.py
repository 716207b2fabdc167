"""What the driver and the nodes tell each other: a row of bytes in a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hsoftmax import scoring
from hsoftmax.score_request import Call
from hsoftmax.scoring import Cut, Id, Shard, Tally, Written


@dataclass(frozen=True)
class Work:
    """All that a node has to know of the job; `identity` is what its own order has to be."""

    bundle: Path
    call: Call
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A shard that a node has written, apart from the name of its file's folder."""

    aside: str
    shard: Shard
    tallies: list[tuple[Id, Tally]]
    flaws: list[str]

    @classmethod
    def of(cls, written: Written) -> "Made":
        return cls(
            written.aside.name, written.shard, list(written.tallies.items()), list(written.flaws)
        )

    def written(self, workspace: scoring.Workspace) -> Written:
        return Written(workspace.path / self.aside, self.shard, dict(self.tallies), self.flaws)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cut: what was made of it, or why it could not be."""

    node: str
    made: Made | None = None
    error: str = ""
    exit_code: int = 1


_encode = msgspec.msgpack.Encoder().encode
_cut = msgspec.msgpack.Decoder(Cut | None)
_outcome = msgspec.msgpack.Decoder(Outcome | None)


def table(cut: Cut | None = None, outcome: Outcome | None = None) -> pa.Table:
    """One row, as it travels: what is to be done, or what became of it."""
    return pa.table({"cut": [_encode(cut)], "outcome": [_encode(outcome)]})


def cut_of(row: pa.Table) -> Cut | None:
    cut: Cut | None = _cut.decode(row["cut"][0].as_py())
    return cut


def outcomes_of(rows: pa.Table) -> list[Outcome]:
    """Of rows that have come back, each with its outcome."""
    found = map(_outcome.decode, rows["outcome"].to_pylist())
    return [outcome for outcome in found if outcome is not None]
