"""An Arrow IPC stream as messages, out of bytes in any pieces; nothing of it is trusted.

FF FF FF FF | length of metadata | metadata (a flatbuffer) | body      and at the end length 0
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hsoftmax.scoring.errors import BrokenInput

MAX_MESSAGE_BYTES = 16 * 2**20  # bytes

NOT_ARROW = "body: expected an Arrow IPC stream, which this is not"
_CONTINUATION = 0xFFFFFFFF
_PREFIX = 8
_KINDS = {1: "schema", 2: "dictionary", 3: "record batch"}


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """One message, as it came; `dictionary` is the number of the one that it is of."""

    kind: str
    raw: bytes
    dictionary: int = 0
    delta: bool = False


class ArrowFramer:
    """Messages out of bytes; holds one unfinished message, never a larger one."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = _PREFIX
        self._ended = False

    def feed(self, data: bytes) -> Iterator[ArrowMessage]:
        """The messages that end within these bytes. Raises BrokenInput."""
        self._buffer += data
        while len(self._buffer) >= self._needed:
            try:
                message = self._next()
            except BrokenInput:
                raise
            except (struct.error, KeyError, ValueError):
                raise BrokenInput(NOT_ARROW) from None
            if message is not None:
                yield message

    def end(self) -> None:
        """Raise BrokenInput unless the stream said that it ended."""
        if not self._ended or self._buffer:
            raise BrokenInput("body: expected an Arrow IPC stream, got one that is cut short")

    def _next(self) -> ArrowMessage | None:
        """The next message; None if more of it is needed, or none follows."""
        marker, length = struct.unpack_from("<Ii", self._buffer)
        if marker != _CONTINUATION or length < 0 or self._ended:
            raise ValueError
        if length == 0:
            self._ended = True
            del self._buffer[:_PREFIX]
            return None
        if self._wait_for(_PREFIX + length):
            return None
        metadata = bytes(self._buffer[_PREFIX : _PREFIX + length])
        size = _PREFIX + length + _body_length(metadata)
        if self._wait_for(size):
            return None
        raw = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._needed = _PREFIX
        return _message(metadata, raw)

    def _wait_for(self, size: int) -> bool:
        """Whether so many bytes are not there yet. Raises BrokenInput if they are too many."""
        if size > MAX_MESSAGE_BYTES:
            raise BrokenInput(
                f"body: expected record batches of at most {MAX_MESSAGE_BYTES} bytes, got a larger "
                "one: write fewer rows in each"
            )
        self._needed = size
        return len(self._buffer) < size


def header_of_batch(metadata: bytes, kind: str) -> tuple[bytes, int] | None:
    """Where the flatbuffer of a message has its RecordBatch, if it has one."""
    root: int = struct.unpack_from("<I", metadata, 0)[0]
    header = _follow(metadata, root + field(metadata, root, 2))
    if kind == "record batch":
        return metadata, header
    if kind == "dictionary":
        return metadata, _follow(metadata, header + field(metadata, header, 1))
    return None


def is_compressed(metadata: bytes, kind: str) -> bool:
    """Whether a message's buffers are: how large they become nothing bounds."""
    header = header_of_batch(metadata, kind)
    return header is not None and bool(field(*header, 3))


def field(buffer: bytes, table: int, index: int) -> int:
    """A flatbuffer table's field, as an offset from the table; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size: int = struct.unpack_from("<H", buffer, vtable)[0]
    at = 4 + 2 * index
    offset: int = struct.unpack_from("<H", buffer, vtable + at)[0] if at < size else 0
    return offset


def _message(metadata: bytes, raw: bytes) -> ArrowMessage:
    root: int = struct.unpack_from("<I", metadata, 0)[0]
    kind = _KINDS[_number(metadata, root, 1, "<B")]
    if is_compressed(metadata, kind):
        raise BrokenInput(
            "body: expected plain buffers; compress the body (content-encoding) instead"
        )
    if kind != "dictionary":
        return ArrowMessage(kind, raw)
    header = _follow(metadata, root + field(metadata, root, 2))
    number, delta = _number(metadata, header, 0, "<q"), _number(metadata, header, 2, "<B")
    return ArrowMessage(kind, raw, number, bool(delta))


def _body_length(metadata: bytes) -> int:
    root: int = struct.unpack_from("<I", metadata, 0)[0]
    length = _number(metadata, root, 3, "<q")
    if length < 0:
        raise ValueError
    return length


def _number(buffer: bytes, table: int, index: int, kind: str) -> int:
    """A number that is a field of a table; 0 if it is absent."""
    offset = field(buffer, table, index)
    number: int = struct.unpack_from(kind, buffer, table + offset)[0] if offset else 0
    return number


def _follow(buffer: bytes, at: int) -> int:
    to: int = at + struct.unpack_from("<I", buffer, at)[0]
    return to
