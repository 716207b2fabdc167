"""Writes pickles as Python 2 writes them: its text is bytes, which Python 3 never writes so."""

from collections.abc import Mapping, Sequence

import numpy as np

Value = np.ndarray | Sequence["Value"] | Mapping[str, "Value"] | int


def python2_pickle(value: Value, protocol: int) -> bytes:
    """Return a pickle of protocol 0, 1 or 2 of arrays in lists, tuples and dictionaries."""
    start = b"\x80\x02" if protocol == 2 else b""
    return start + _value(value, protocol) + b"."


def _value(value: Value, protocol: int) -> bytes:
    if isinstance(value, np.ndarray):
        return _array(value, protocol)
    if isinstance(value, int):
        return b"I%d\n" % value
    if isinstance(value, Mapping):
        items = ((_text(k.encode(), protocol), _value(v, protocol)) for k, v in value.items())
        return b"(" + b"".join(key + item for key, item in items) + b"d"
    items = b"".join(_value(item, protocol) for item in value)
    return b"(" + items + (b"t" if isinstance(value, tuple) else b"l")


def _text(content: bytes, protocol: int) -> bytes:
    if protocol == 0:
        return b"S" + repr(content)[1:].encode() + b"\n"
    return b"T" + len(content).to_bytes(4, "little") + content


def _array(array: np.ndarray, protocol: int) -> bytes:
    """Return the instructions that NumPy's `__reduce__` causes."""
    kind, order = array.dtype.str[1:].encode(), array.dtype.str[:1].encode()
    shape = b"(" + b"".join(b"I%d\n" % size for size in array.shape) + b"t"
    dtype = (
        b"cnumpy\ndtype\n(" + _text(kind, protocol) + b"I0\nI1\ntR"
        b"(I3\n" + _text(order, protocol) + b"NNNI-1\nI-1\nI0\ntb"
    )
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt"
        + _text(b"b", protocol) + b"tR"
        + b"(I1\n" + shape + dtype + b"I00\n" + _text(array.tobytes(), protocol) + b"tb"
    )  # fmt: skip
