"""Splits an Arrow IPC stream into messages, from bytes in any pieces, without trusting any of them.

FF FF FF FF | length of metadata | metadata (a flatbuffer) | body      and at the end length 0
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hsoftmax.scoring.errors import BrokenInput

MAX_MESSAGE_BYTES = 16 * 2**20

NOT_ARROW = "body: expected an Arrow IPC stream, which this is not"
TOO_LARGE = (
    f"body: expected record batches of at most {MAX_MESSAGE_BYTES} bytes, got a larger one: "
    "write fewer rows in each"
)
_CONTINUATION = 0xFFFFFFFF
_PREFIX_BYTES = 8
_BUFFERS, _COMPRESSION = 2, 3  # fields of the table RecordBatch
_NOT_COMPRESSED = -1  # in place of a size
_KINDS = {1: "schema", 2: "dictionary", 3: "record batch"}


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """One message with its framing; of a dictionary also its number, and whether it is a delta.

    `size` counts the bytes of the message after decompression.
    """

    kind: str
    raw: bytes
    size: int
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
            except (struct.error, KeyError, ValueError):
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
            raise BrokenInput(TOO_LARGE)
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


def decoded_size(metadata: bytes, kind: str, body: bytes | memoryview) -> int:
    """Returns the bytes of a message's buffers after decompression.

    A compressed buffer begins with this number; the decoder allocates and fills no more than that.

    Raises:
        struct.error, ValueError: the message is not what it should be.
    """
    header = record_batch_header(metadata, kind)
    if header is None or not field(*header, _COMPRESSION):
        return len(body)
    return sum(_decoded_sizes(*header, body))


def _decoded_sizes(metadata: bytes, table: int, body: bytes | memoryview) -> Iterator[int]:
    """Yields the size of each buffer that a compressed RecordBatch table lists."""
    at = field(metadata, table, _BUFFERS)
    vector = _follow(metadata, table + at) if at else 0
    count: int = struct.unpack_from("<I", metadata, vector)[0] if at else 0
    for i in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * i)
        if not 0 <= offset <= offset + length <= len(body):
            raise ValueError
        size = struct.unpack_from("<q", body, offset)[0] if length else 0
        if size < _NOT_COMPRESSED:
            raise ValueError
        yield length if size == _NOT_COMPRESSED else size


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
    framing = _PREFIX_BYTES + len(metadata)
    size = framing + decoded_size(metadata, kind, memoryview(raw)[framing:])
    if size > MAX_MESSAGE_BYTES:
        raise BrokenInput(TOO_LARGE)
    if kind != "dictionary":
        return ArrowMessage(kind, raw, size)
    header = _follow(metadata, root + field(metadata, root, 2))
    number, delta = _number(metadata, header, 0, "<q"), _number(metadata, header, 2, "<B")
    return ArrowMessage(kind, raw, size, number, bool(delta))


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
