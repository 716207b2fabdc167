"""Seeded mutations of bytes: numbers, lengths and text that a decoder may trust too much."""

import random
import struct
from collections.abc import Callable, Sequence

_INTEGERS = (0, 1, -1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**40,
             2**62, 2**63 - 1, -(2**63), 2**64 - 1)  # fmt: skip
_TEXTS = (b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"9" * 30, b"9" * 5000, b"null", b"true",
          b"{}", b"[" * 200, b"{\"a\":" * 200, b'"', b"\\ud800",
          b"\xed\xa0\x80", b"\xff", b"\xe9", b"\0",
          b"\r\n", b"\n\n", b",", b"\xef\xbb\xbf", b"'", b"(", b"  \n 1\n   2\n  3", b"-" * 9000,
          b"True", b"1_0", "٣".encode(), b"--", b"%", b"&targets=")  # fmt: skip
_MAX_CHANGES = 4
_MAX_BLOCK = 64

Mutation = Callable[[bytearray, random.Random], None]


def mutate(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of the seeds with one to four changes."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, _MAX_CHANGES)):
        if not content:
            break
        rng.choice(_MUTATIONS)(content, rng)
    return bytes(content)


def _flip_bit(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_integer(content: bytearray, rng: random.Random) -> None:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = (rng.choice(_INTEGERS) & (2 ** (8 * size) - 1)).to_bytes(size, order)
    at = rng.randrange(len(content))
    content[at : at + size] = value[: len(content) - at]


def _set_float(content: bytearray, rng: random.Random) -> None:
    value = struct.pack("<f", rng.choice((float("nan"), float("inf"), 3e38, -0.0, 1e-45)))
    at = rng.randrange(len(content))
    content[at : at + 4] = value[: len(content) - at]


def _insert_text(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = rng.choice(_TEXTS)


def _replace_with_text(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at : at + rng.randint(1, 8)] = rng.choice(_TEXTS)


def _delete_block(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    del content[at : at + rng.randint(1, _MAX_BLOCK)]


def _repeat_block(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    block = content[at : at + rng.randint(1, _MAX_BLOCK)]
    content[at:at] = block * rng.choice((1, 2, 100))


def _move_block(content: bytearray, rng: random.Random) -> None:
    at, to = rng.randrange(len(content)), rng.randrange(len(content))
    block = content[at : at + rng.randint(1, _MAX_BLOCK)]
    content[to : to + len(block)] = block


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _set_integer, _set_integer, _set_float,
    _insert_text, _replace_with_text, _delete_block, _repeat_block, _move_block, _cut,
)  # fmt: skip
