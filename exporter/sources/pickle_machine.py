"""The stack machine of a pickle, which executes it as data.

A pickle is a program for a small stack machine. Python's own reader executes it: it imports the
names in the file and calls them. This machine follows the same instructions, which `pickletools`
decodes, but turns an imported name into a `PickledGlobal` and a call into a `PickledCall` that
records the function and its arguments. A file can thus cause no effect. `pickle_reader` runs it.
"""

import codecs
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MAX_KEY_INTEGER = 2**63  # larger integers can be chosen so that all of them have one hash


class ByteString(str):
    """A Python 2 string; each character is one byte."""

    __slots__ = ()

    @property
    def content(self) -> bytes:
        return self.encode("latin-1")


@dataclass(frozen=True)
class PickledGlobal:
    """A global name that the pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class PickledCall:
    """A call that the pickle would make, with the content that it would add to the result."""

    function: object
    arguments: object
    state: object = None
    items: list[object] = field(default_factory=list)
    entries: dict[object, object] = field(default_factory=dict)


@dataclass(eq=False)
class PickledKey:
    """A key of a dictionary or an item of a set that is not plain, such as a tuple.

    It is never hashed or compared by its content: a tuple that contains itself twice, at 64 levels,
    takes 140 bytes in a file and 2**64 steps to hash.
    """

    content: object


def is_plain_key(value: object) -> bool:
    """True if a dictionary of the pickle has the value itself as a key, not a PickledKey."""
    is_large = isinstance(value, int) and abs(value) > _MAX_KEY_INTEGER
    return isinstance(value, _PLAIN_KEYS) and not is_large


def instructions(content: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 -- anything with read and readline
    """Yield (opcode name, argument) of one pickle, which are decoded and not executed.

    Raises:
        ValueError and others: the content is not a whole pickle.
    """
    name = ""
    while name != "STOP":
        code = content.read(1)
        if not code:
            raise ValueError("pickle exhausted before seeing STOP")
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise ValueError(f"{code!r} is no instruction")
        name = opcode.name
        if name == "STRING":  # pickletools reads ASCII alone
            yield name, _quoted(content.readline())
        else:
            yield name, None if opcode.arg is None else opcode.arg.reader(content)


def _quoted(line: bytes) -> str:
    """Return a Python 2 string, written as its repr; each character is one byte."""
    text = line.strip()
    if not line.endswith(b"\n") or len(text) < 2 or text[:1] not in b"'\"" or text[-1:] != text[:1]:
        raise ValueError("it has a string without quotes")
    content: bytes = codecs.escape_decode(text[1:-1])[0]
    return content.decode("latin-1")


def parse_global(argument: str) -> PickledGlobal:
    """Return the global of an instruction GLOBAL or INST: module and name."""
    module, name = argument.split(" ", 1)
    return PickledGlobal(module, name)


class PickleMachine:
    """The stack machine of a pickle.

    In a checkpoint, persistent ids stand for storages of tensors. If PyTorch reads it afterwards,
    keys must not be nested.
    """

    def __init__(self, *, has_persistent_ids: bool = False, has_plain_keys: bool = False) -> None:
        self._has_persistent_ids = has_persistent_ids
        self._has_plain_keys = has_plain_keys
        self.stack: list[Any] = []
        self.marked_stacks: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def run(self, instructions: Iterator[tuple[str, Any]]) -> object:
        for name, argument in instructions:
            if name in _PUSH_INSTRUCTIONS:
                self.push(argument)
            elif name in _HANDLERS:
                _HANDLERS[name](self, argument)
            elif name == "BINPERSID" and self._has_persistent_ids:
                _persistent_id(self, argument)
            elif name == "STOP":
                return self.stack.pop()
            elif name not in _IGNORED_INSTRUCTIONS:
                raise ValueError(f"it asks for {name}, which lies outside the file")
        raise ValueError("it has no end")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marked_stacks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marked_stacks.pop()
        return values

    def pop_last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it takes more than it has put down")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def key(self, value: object) -> object:
        """Return the value if it is plain, else one that stands for it, hashed by identity."""
        if isinstance(value, list | dict | set | bytearray):
            raise ValueError(f"it has an unhashable key, a {type(value).__name__}")
        if is_plain_key(value):
            return value
        is_flat = isinstance(value, tuple) and all(map(is_plain_key, value))
        if self._has_plain_keys and not is_flat:
            raise ValueError("it has a nested key")
        return PickledKey(value)

    def append(self, values: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, set):
            top.update(map(self.key, values))
        else:
            (top.items if isinstance(top, PickledCall) else top).extend(values)

    def set_items(self, values: list[Any]) -> None:
        top = self.stack[-1]
        pairs = zip(map(self.key, values[::2]), values[1::2], strict=True)
        (top.entries if isinstance(top, PickledCall) else top).update(pairs)

    def push_call(self, function: object, arguments: object) -> None:
        self.push(PickledCall(function, arguments))

    def build(self) -> None:
        (state,) = self.pop_last(1)
        if isinstance(self.stack[-1], PickledCall):
            self.stack[-1].state = state


_PUSH_INSTRUCTIONS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_PLAIN_KEYS = (str, bytes, int, float, PickledGlobal, type(None))
_IGNORED_INSTRUCTIONS = {"PROTO", "FRAME"}
Argument = Any  # of an instruction, as `pickletools` decodes it
_Handler = Callable[[PickleMachine, Argument], object]


def _put(machine: PickleMachine, key: Argument) -> None:
    machine.memo[len(machine.memo) if key is None else key] = machine.stack[-1]


def _get(machine: PickleMachine, key: Argument) -> None:
    machine.push(machine.memo[key])


def _dict(machine: PickleMachine, _: Argument) -> None:
    values = machine.pop_to_mark()
    machine.push(dict(zip(map(machine.key, values[::2]), values[1::2], strict=True)))


def _persistent_id(machine: PickleMachine, _: Argument) -> None:
    (id,) = machine.pop_last(1)
    machine.push_call("persistent id", id)


def _stack_global(machine: PickleMachine, _: Argument) -> None:
    module, name = machine.pop_last(2)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("it names a global by something that is not text")
    machine.push(PickledGlobal(module, name))


def _object(machine: PickleMachine, _: Argument) -> None:
    function, *arguments = machine.pop_to_mark()
    machine.push_call(function, tuple(arguments))


def _string(machine: PickleMachine, text: Argument) -> None:
    machine.push(ByteString(text))


_HANDLERS: Mapping[str, _Handler] = {
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
    "LIST": lambda m, _: m.push(m.pop_to_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
    "FROZENSET": lambda m, _: m.push(frozenset(map(m.key, m.pop_to_mark()))),
    "DICT": _dict,
    "TUPLE1": lambda m, _: m.push(tuple(m.pop_last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop_last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop_last(3))),
    "APPEND": lambda m, _: m.append(m.pop_last(1)),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop_last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "POP": lambda m, _: m.pop_to_mark() if not m.stack else m.pop_last(1),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "GLOBAL": lambda m, name: m.push(parse_global(name)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda m, _: m.push_call(*m.pop_last(2)),
    "NEWOBJ": lambda m, _: m.push_call(*m.pop_last(2)),
    "NEWOBJ_EX": lambda m, _: m.push_call(*m.pop_last(3)[:2]),
    "INST": lambda m, name: m.push_call(parse_global(name), tuple(m.pop_to_mark())),
    "OBJ": _object,
    "BUILD": lambda m, _: m.build(),
}
