"""Splits an Arrow IPC stream into messages, from bytes in any pieces, without trusting any of them.

FF FF FF FF | length of metadata | metadata (a flatbuffer) | body      and at the end length 0
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hsoftmax.scoring.errors import BrokenInput

MAX_MESSAGE_BYTES = 16 * 2**20

NOT_ARROW = "body: expected an Arrow IPC stream, which this is not"
_CONTINUATION = 0xFFFFFFFF
_PREFIX_BYTES = 8
_KINDS = {1: "schema", 2: "dictionary", 3: "record batch"}


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """One message with its framing; of a dictionary also its number, and whether it is a delta."""

    kind: str
    raw: bytes
    dictionary: int = 0
    delta: bool = False


class ArrowFramer:
    """Splits bytes into messages. It holds one unfinished message, up to the maximum size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = _PREFIX_BYTES
        self._ended = False

    def feed(self, data: bytes) -> Iterator[ArrowMessage]:
        """Yields the messages that end within these bytes. Raises BrokenInput."""
        self._buffer += data
        while len(self._buffer) >= self._needed:
            try:
                message = self._next()
            except BrokenInput:
                raise
            except Exception:  # of any type: the metadata is not trusted
                raise BrokenInput(NOT_ARROW) from None
            if message is not None:
                yield message

    def end(self) -> None:
        """Raises BrokenInput unless the stream's end mark has come, and nothing after it."""
        if not self._ended or self._buffer:
            raise BrokenInput("body: expected an Arrow IPC stream, got one that is cut short")

    def _next(self) -> ArrowMessage | None:
        """Returns the next message, or None if it is incomplete or is the end mark."""
        marker, length = struct.unpack_from("<Ii", self._buffer)
        if marker != _CONTINUATION or length < 0 or self._ended:
            raise ValueError
        if length == 0:
            self._ended = True
            del self._buffer[:_PREFIX_BYTES]
            return None
        if self._needs_more(_PREFIX_BYTES + length):
            return None
        metadata = bytes(self._buffer[_PREFIX_BYTES : _PREFIX_BYTES + length])
        size = _PREFIX_BYTES + length + _body_length(metadata)
        if self._needs_more(size):
            return None
        raw = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._needed = _PREFIX_BYTES
        return _message(metadata, raw)

    def _needs_more(self, size: int) -> bool:
        """True if fewer than `size` bytes have come. Raises BrokenInput if that is too many."""
        if size > MAX_MESSAGE_BYTES:
            raise BrokenInput(
                f"body: expected record batches of at most {MAX_MESSAGE_BYTES} bytes, got a larger "
                "one: write fewer rows in each"
            )
        self._needed = size
        return len(self._buffer) < size


def record_batch_header(metadata: bytes, kind: str) -> tuple[bytes, int] | None:
    """Returns (flatbuffer, offset of its RecordBatch table), or None if the message has none."""
    root: int = struct.unpack_from("<I", metadata, 0)[0]
    header = _follow(metadata, root + field(metadata, root, 2))
    if kind == "record batch":
        return metadata, header
    if kind == "dictionary":
        return metadata, _follow(metadata, header + field(metadata, header, 1))
    return None


def is_compressed(metadata: bytes, kind: str) -> bool:
    """True if a message's buffers are compressed, which puts no bound on their real size."""
    header = record_batch_header(metadata, kind)
    return header is not None and bool(field(*header, 3))


def field(buffer: bytes, table: int, index: int) -> int:
    """Returns the offset of a flatbuffer table's field from the table, or 0 if it is absent."""
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
    """Returns a number that is a field of a table, or 0 if it is absent."""
    offset = field(buffer, table, index)
    number: int = struct.unpack_from(kind, buffer, table + offset)[0] if offset else 0
    return number


def _follow(buffer: bytes, at: int) -> int:
    """Returns the offset that a relative reference at `at` points to."""
    target: int = at + struct.unpack_from("<I", buffer, at)[0]
    return target
