"""The role of each column: the option `--columns`, or the default names."""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError

_RANGE = re.compile(r"(?P<stem>.*?)(?P<first>\d{1,9})\.\.(?P=stem)(?P<last>\d{1,9})", re.ASCII)
_MAX_NAME = 1000  # characters; matching a range takes the square of it
_MAX_INPUTS = 100_000
CUSTOM_ID = "custom_id"
_TEXT = "text"
_ROLES = ("input", "id", "target", "targets", "sequence", "text")


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each role.

    Attributes:
        input: one column of lists, or one column for each number; empty for the default
        text: the column of texts, for bundles that take text; empty for the default
        body: the field of a line that holds all of the row but its id; empty if there is none
    """

    input: tuple[str, ...] = ()
    id: str = "id"
    target: str = "target"
    targets: str = "targets"
    sequence: str = "sequence"
    text: str = ""
    body: str = ""


def parse_columns(texts: Sequence[str]) -> Columns:
    """Parses `role=column` and names or ranges (`h0..h127`) of input columns, comma-separated.

    Raises:
        CallError: an unknown role, a range that does not ascend, a name too long, or too many.
    """
    columns = Columns()
    inputs: list[str] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        role, equals, name = part.rpartition("=")
        if not name:
            raise CallError(f"columns: expected names or role=name, got {part!r}")
        if len(part) > _MAX_NAME:
            raise CallError(
                f"columns: expected names of at most {_MAX_NAME} characters, got {len(part)}"
            )
        if not equals or role == "input":
            inputs += _expand_range(name, _MAX_INPUTS - len(inputs))
        elif role in _ROLES:
            columns = _with_role(columns, role, name)
        else:
            raise CallError(f"columns: expected one of {', '.join(_ROLES)}, got {role!r}")
    return replace(columns, input=tuple(inputs))


def input_columns(
    columns: Columns, names: Sequence[str], width: int, *, takes_text: bool = False
) -> tuple[str, ...]:
    """Returns the input columns among `names`: the configured ones, or `input`, or h0, h1, …

    `takes_text` is for the message about missing columns, of which `text` is one then.

    Raises:
        CallError: they are missing, or their number is not the bundle's hidden_size.
    """
    numbered = tuple(f"h{i}" for i in range(width))
    inputs = columns.input or (("input",) if "input" in names else numbered)
    missing = set(inputs).difference(names)
    if missing:
        text = f", or {_TEXT}" if takes_text else ""
        default = f"input, or h0 to h{width - 1}{text}"
        expected = ", ".join(inputs) if columns.input else default
        raise CallError(f"columns: expected {expected}, got {_shortened(names)}")
    if len(inputs) not in (1, width):
        raise CallError(f"columns: expected {width} for the input, got {len(inputs)}")
    return inputs


def find_inputs(columns: Columns, names: Sequence[str], bundle_info: BundleInfo) -> tuple[str, ...]:
    """Returns the names of the input columns: of numbers, or the one of texts. Raises CallError."""
    text = text_column(columns, names, bundle_info)
    if text is not None:
        return (text,)
    return input_columns(columns, names, bundle_info.hidden_size, takes_text=bundle_info.takes_text)


def text_column(columns: Columns, names: Sequence[str], bundle_info: BundleInfo) -> str | None:
    """Returns the column of texts: the configured one, or `text` where no other input is.

    Raises:
        CallError: it is missing, or the bundle takes no text.
    """
    if columns.text:
        if columns.text not in names:
            raise CallError(f"columns: expected {columns.text}, got {_shortened(names)}")
        if not bundle_info.takes_text:
            raise CallError(
                f"columns: expected no text, as {bundle_info.name} takes none here, "
                f"got text={columns.text}"
            )
        return columns.text
    other = columns.input or "input" in names or "h0" in names
    return _TEXT if bundle_info.takes_text and _TEXT in names and not other else None


def id_fallback_column(columns: Columns, names: Container[str]) -> Columns:
    """Returns the columns with `custom_id` for the id, if only that one is among `names`."""
    if CUSTOM_ID in names and columns.id not in names:
        return replace(columns, id=CUSTOM_ID)
    return columns


def _with_role(columns: Columns, role: str, name: str) -> Columns:
    return Columns(**{**{r: getattr(columns, r) for r in _ROLES}, role: name})


def _expand_range(name: str, room: int) -> list[str]:
    """Returns the names of a range, or one name. Raises CallError if they are more than `room`."""
    match = _RANGE.fullmatch(name)
    first, last = (0, 0) if match is None else (int(match["first"]), int(match["last"]))
    if last < first:
        raise CallError(f"columns: expected a range that ascends, got {name!r}")
    if last - first >= room:
        raise CallError(f"columns: expected at most {_MAX_INPUTS} for the input, got more")
    if match is None:
        return [name]
    return [f"{match['stem']}{i}" for i in range(first, last + 1)]


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
