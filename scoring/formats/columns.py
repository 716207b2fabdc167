"""Which column is what: `--columns`, or the names that are understood without it."""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from hsoftmax.scoring.errors import CallError

_RANGE = re.compile(r"(?P<stem>.*?)(?P<first>\d+)\.\.(?P=stem)(?P<last>\d+)")
CUSTOM_ID = "custom_id"
_ROLES = ("input", "id", "target", "targets", "sequence")


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each role; `input` is one column of lists, or one column a number.

    `body`, where there is one, is the field of a line that holds all of the row but its id.
    """

    input: tuple[str, ...] = ()
    id: str = "id"
    target: str = "target"
    targets: str = "targets"
    sequence: str = "sequence"
    body: str = ""


def parse_columns(texts: Sequence[str]) -> Columns:
    """`role=column` and bare names or ranges (`h0..h127`) of input columns, comma-separated.

    Raises:
        CallError: an unknown role, or a range that is none.
    """
    columns, inputs = Columns(), []
    for part in (part.strip() for text in texts for part in text.split(",")):
        role, equals, name = part.rpartition("=")
        if not name:
            raise CallError(f"columns: expected names or role=name, got {part!r}")
        if not equals or role == "input":
            inputs += _range(name)
        elif role in _ROLES:
            columns = _renamed(columns, role, name)
        else:
            raise CallError(f"columns: expected one of {', '.join(_ROLES)}, got {role!r}")
    return replace(columns, input=tuple(inputs))


def input_columns(columns: Columns, names: Sequence[str], width: int) -> tuple[str, ...]:
    """The input's columns among `names`: those told, or `input`, or h0, h1, …

    Raises:
        CallError: they are not there, or not as many as the bundle's hidden_size.
    """
    numbered = tuple(f"h{i}" for i in range(width))
    wanted = columns.input or (("input",) if "input" in names else numbered)
    missing = [name for name in wanted if name not in names]
    if missing:
        told = ", ".join(wanted) if columns.input else f"input, or h0 to h{width - 1}"
        raise CallError(f"columns: expected {told}, got {_shown(names)}")
    if len(wanted) not in (1, width):
        raise CallError(f"columns: expected {width} for the input, got {len(wanted)}")
    return wanted


def id_fallback_column(columns: Columns, names: Container[str]) -> Columns:
    """The columns with `custom_id` for the id, if that is there and the other is not."""
    if CUSTOM_ID in names and columns.id not in names:
        return replace(columns, id=CUSTOM_ID)
    return columns


def _renamed(columns: Columns, role: str, name: str) -> Columns:
    return Columns(**{**{r: getattr(columns, r) for r in _ROLES}, role: name})


def _range(name: str) -> list[str]:
    match = _RANGE.fullmatch(name)
    if match is None:
        return [name]
    first, last = int(match["first"]), int(match["last"])
    if not 0 <= last - first < 1_000_000:
        raise CallError(f"columns: expected a range that ascends, got {name!r}")
    return [f"{match['stem']}{i}" for i in range(first, last + 1)]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
