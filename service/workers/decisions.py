"""The decisions of the operator that all workers follow: reload or unload a bundle.

A worker records a decision before it carries it out, and every worker compares the record with what
it has carried out itself. So a worker that fails half-way, or starts later, still gets there.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from .shared_record import SharedRecord

Action = Literal["reload", "unload"]


class Decision(msgspec.Struct, frozen=True):
    """The last decision about one bundle. A later decision has a higher number."""

    number: int
    action: Action


Decisions = Mapping[str, Decision]  # by the bundle's name


def read_decisions(record: SharedRecord) -> Decisions:
    value = record.read()
    return msgspec.json.decode(value, type=dict[str, Decision]) if value else {}


def add_decision(record: SharedRecord, name: str, action: Action) -> None:
    """Record a decision that replaces earlier ones about the bundle."""
    with record.locked():
        before = read_decisions(record)
        number = 1 + max((one.number for one in before.values()), default=0)
        record.write(msgspec.json.encode({**before, name: Decision(number, action)}))


def unloaded(decisions: Decisions) -> frozenset[str]:
    """The names of bundles that are not served."""
    return frozenset(name for name, one in decisions.items() if one.action == "unload")


def not_followed(wanted: Decisions, followed: Decisions) -> Decisions:
    """The decisions that are missing in `followed`."""
    return {name: one for name, one in wanted.items() if followed.get(name) != one}
