"""Bounds the fields of a message before protobuf parses it.

Two bytes on the wire can become a tensor, a parameter or a text of a hundred bytes in memory, so a
message within the limit of bytes could take many times as much memory. The numbers of packed
arrays are not counted: they take at most eight times their bytes.
"""

from typing import Any

from hsoftmax.service.errors import TooLarge, Unreadable

Descriptor = Any  # google.protobuf.descriptor.Descriptor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


def check_fields(data: bytes, descriptor: Descriptor, limit: int) -> None:
    """Check that a message has at most `limit` fields, those of its messages included.

    Raises:
        TooLarge: it has more.
        Unreadable: the bytes are no fields.
    """
    left = limit
    pending = [(memoryview(data), descriptor)]
    while pending:
        part, message = pending.pop()
        position = 0
        while position < len(part):
            left -= 1
            if left < 0:
                raise TooLarge(f"message: expected at most {limit} fields, got more")
            tag, position = _read_varint(part, position)
            start, position = _skip(part, position, tag & 7)
            field = message.fields_by_number.get(tag >> 3)
            if tag & 7 == _BYTES and field is not None and field.message_type is not None:
                pending.append((part[start:position], field.message_type))


def _skip(part: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    """Return the start of a field's value and the end of it."""
    if wire_type == _VARINT:
        return position, _read_varint(part, position)[1]
    if wire_type == _BYTES:
        length, position = _read_varint(part, position)
    elif wire_type in _FIXED_SIZES:
        length = _FIXED_SIZES[wire_type]
    else:  # a group: no message has any
        raise unreadable()
    if position + length > len(part):
        raise unreadable()
    return position, position + length


def _read_varint(part: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in part[position : position + _MAX_VARINT_BYTES]:
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise unreadable()


def unreadable() -> Unreadable:
    """Return the error for bytes that are no message of the protocol."""
    return Unreadable("message: expected one of inference.proto, got other bytes")
