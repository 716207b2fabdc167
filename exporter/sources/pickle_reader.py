"""A pickle as inert data: nothing it names is looked up, and nothing it asks for is called.

A pickle is a program for a small stack machine, and Python's own reader runs it: it imports what
the file names and calls it. Here the same instructions are followed (listed by `pickletools`,
which only decodes), but a name stays a `Name`, and a call becomes a `Made` that remembers what was
to be called on what. So a file can say anything and do nothing.
"""

import mmap
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsoftmax.exporter.errors import SourceError


class ByteString(str):
    """A Python 2 string: each character is one byte of it."""

    __slots__ = ()

    @property
    def content(self) -> bytes:
        return self.encode("latin-1")


@dataclass(frozen=True)
class Name:
    """Something that the pickle would have imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """Something that the pickle would have called into being, and what it put into it."""

    of: object
    arguments: object
    state: object = None
    items: list[object] = field(default_factory=list)
    entries: dict[object, object] = field(default_factory=dict)


def read_inert(path: Path) -> object:
    """The one object of a pickle file.

    Raises:
        SourceError: not a whole pickle, or one that needs more than the file.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with content:
            return _Machine().run(_instructions(content))
    except OSError as error:
        raise SourceError(f"{path.name}: expected a pickle, got {error.strerror}") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        why = str(error) or type(error).__name__
        raise SourceError(f"{path.name}: expected a whole pickle: {why}") from None


def first_name(path: Path) -> Name | None:
    """The first thing that a pickle names: what its object is. None where it is no pickle."""
    try:
        with path.open("rb") as file:
            if file.read(1) != b"\x80":
                return None
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with content:
            return _first_name(_instructions(content))
    except (OSError, ValueError, IndexError, TypeError):
        return None


def _first_name(instructions: Iterator[tuple[str, Any]]) -> Name | None:
    texts: list[str] = []
    for (name, argument), _ in zip(instructions, range(16), strict=False):
        if name == "GLOBAL":
            return _named(argument)
        if name == "STACK_GLOBAL":
            return Name(*texts[-2:])
        if isinstance(argument, str):
            texts.append(argument)
    return None


def _instructions(content: mmap.mmap) -> Iterator[tuple[str, Any]]:
    """A map, unlike a file, never reserves room for more than it holds."""
    for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]
        yield opcode.name, argument


def _named(argument: str) -> Name:
    module, name = argument.split(" ", 1)
    return Name(module, name)


class _Machine:
    """The stack machine of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def run(self, instructions: Iterator[tuple[str, Any]]) -> object:
        for name, argument in instructions:
            if name in _PUSHED:
                self.push(argument)
            elif name in _FOLLOWED:
                _FOLLOWED[name](self, argument)
            elif name == "STOP":
                return self.stack.pop()
            elif name not in _IGNORED:
                raise ValueError(f"it asks for {name}, which lies outside the file")
        raise ValueError("it has no end")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it takes more than it has put down")
        found = self.stack[-count:]
        del self.stack[-count:]
        return found

    def append(self, values: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, set):
            top.update(values)
        else:
            (top.items if isinstance(top, Made) else top).extend(values)

    def set_items(self, values: list[Any]) -> None:
        top = self.stack[-1]
        pairs = zip(values[::2], values[1::2], strict=True)
        (top.entries if isinstance(top, Made) else top).update(pairs)

    def make(self, of: object, arguments: object) -> None:
        self.push(Made(of, arguments))

    def build(self) -> None:
        (state,) = self.last(1)
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state


_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_IGNORED = {"PROTO", "FRAME"}
Argument = Any  # of an instruction: what `pickletools` decoded for its kind
_Follow = Callable[[_Machine, Argument], object]


def _put(machine: _Machine, at: Argument) -> None:
    machine.memo[len(machine.memo) if at is None else at] = machine.stack[-1]


def _get(machine: _Machine, at: Argument) -> None:
    machine.push(machine.memo[at])


def _dict(machine: _Machine, _: Argument) -> None:
    values = machine.since_mark()
    machine.push(dict(zip(values[::2], values[1::2], strict=True)))


def _object(machine: _Machine, _: Argument) -> None:
    of, *arguments = machine.since_mark()
    machine.make(of, tuple(arguments))


def _string(machine: _Machine, text: Argument) -> None:
    machine.push(ByteString(text))


_FOLLOWED: Mapping[str, _Follow] = {
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _string),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "MARK": lambda m, _: m.mark(),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "FROZENSET": lambda m, _: m.push(frozenset(m.since_mark())),
    "DICT": _dict,
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "APPEND": lambda m, _: m.append(m.last(1)),
    "APPENDS": lambda m, _: m.append(m.since_mark()),
    "ADDITEMS": lambda m, _: m.append(m.since_mark()),
    "SETITEM": lambda m, _: m.set_items(m.last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "POP": lambda m, _: m.since_mark() if not m.stack else m.last(1),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "GLOBAL": lambda m, name: m.push(_named(name)),
    "STACK_GLOBAL": lambda m, _: m.push(Name(*map(str, m.last(2)))),
    "REDUCE": lambda m, _: m.make(*m.last(2)),
    "NEWOBJ": lambda m, _: m.make(*m.last(2)),
    "NEWOBJ_EX": lambda m, _: m.make(*m.last(3)[:2]),
    "INST": lambda m, name: m.make(_named(name), tuple(m.since_mark())),
    "OBJ": _object,
    "BUILD": lambda m, _: m.build(),
}
