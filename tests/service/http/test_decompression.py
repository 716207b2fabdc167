"""The number of members of a compressed body: as many as its length allows, and not one more."""

import gzip

import pytest
import zstandard

from hsoftmax.service.errors import Unreadable
from hsoftmax.service.http.decompression import decompress, open_decompressor

LIMIT = 2**26
EMPTY = {"gzip": gzip.compress(b""), "zstd": zstandard.ZstdCompressor().compress(b"")}


@pytest.mark.parametrize("encoding", EMPTY)
@pytest.mark.parametrize("piece", [100, 512, 10**6])
def test_a_member_more_is_allowed_for_each_kilobyte(encoding, piece):
    """The body has 1000 + its length // 1024 members, or one more."""
    member = EMPTY[encoding]
    allowed = 1000
    while 1000 + allowed * len(member) // 1024 > allowed:
        allowed += 1
    for members, fits in ((allowed, True), (allowed + 1, False)):
        assert (1000 + members * len(member) // 1024 >= members) is fits
        if fits:
            assert expand(member * members, encoding, piece) == b""
        else:
            with pytest.raises(Unreadable, match=f"expected {encoding} in parts of 1024 bytes"):
                expand(member * members, encoding, piece)


def test_any_number_of_members_of_two_kilobytes_is_read():
    member = gzip.compress(bytes(range(256)) * 8, 0)
    assert len(member) > 2048
    assert decompress(member * 3000, "gzip", LIMIT) == bytes(range(256)) * 8 * 3000


def expand(body: bytes, encoding: str, piece: int) -> bytes:
    """Decompress a body that arrives in pieces."""
    decompressor = open_decompressor(encoding)
    parts = []
    for start in range(0, len(body), piece):
        parts += decompressor.feed(body[start : start + piece])
    assert decompressor.is_complete
    return b"".join(parts)
