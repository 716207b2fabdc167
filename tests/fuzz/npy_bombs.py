"""Headers of `.npy` files that make NumPy raise errors of many types, or claim much memory."""

import struct


def npy_with_header(text: str, version: tuple[int, int] = (1, 0), content: bytes = b"") -> bytes:
    """Return a file with any text as its header."""
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text.encode("latin-1") + content


def npy_bombs() -> list[bytes]:
    """Return headers that make NumPy raise errors of many types, or claim much memory."""
    header = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"
    shapes = ("(-1,-8)", "(True,8)", f"({'1,' * 65}8)", f"({'9' * 25},0)", f"({2**62},0)",
              f"(0,{2**63 - 1})", "(1000000000000,8)", "(1,)", "()",
              "[1,8]", "(1.0,8)")  # fmt: skip
    texts = ("-" * 9000 + "1", "[" * 5000, "(" * 9000, "  \n 1\n   2\n  3", "{", "1_0", "'" * 9001,
             "{'descr': (), 'fortran_order': False, 'shape': (1, 8), }",
             "{'descr': [('a', [('b', '<f4')] )], 'fortran_order': 1, 'shape': (1,)}",
             "{'descr': 'V2147483647', 'fortran_order': False, 'shape': (1, 8), }",
             "{'descr': '|O', 'fortran_order': False, 'shape': (1, 8), }",
             "{'descr': '<f4', b'fortran_order': False, 'shape': (1, 8), }",
             "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 8L), }")  # fmt: skip
    numbers = struct.pack("<8f", *range(8))
    made = [npy_with_header(header.format(shape), content=numbers) for shape in shapes]
    made += [npy_with_header(text, content=numbers) for text in texts]
    return [*made, npy_with_header("x" * 70_000, (2, 0)), b"\x93NUMPY\x02\0\xff\xff\xff\xff",
            b"\x93NUMPY\x09\0\x10\0" + b" " * 16]  # fmt: skip
