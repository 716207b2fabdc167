"""Tests of compressed request and response bodies, and of bodies that expand too much."""

import gzip
import json
import time
import zlib

import pytest
import zstandard

from hsoftmax.service.middleware.compression import accepted_encoding
from tests.service.conftest import HIDDEN, expect_error, serving
from tests.service.processes import Start

URL = "/v1/models/words/probabilities"
QUERY = json.dumps({"inputs": [[0.5] * HIDDEN] * 100}).encode()
PACK = {"gzip": gzip.compress, "zstd": zstandard.compress, "deflate": zlib.compress}
UNPACK = {
    "gzip": gzip.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    "deflate": zlib.decompress,
}


def post(client, body: bytes, encoding: str):
    return client.post(URL, content=body, headers={"content-encoding": encoding})


@pytest.mark.parametrize("encoding", PACK)
def test_a_compressed_body_is_read(client, encoding):
    expected = client.post(URL, content=QUERY).json()
    assert post(client, PACK[encoding](QUERY), encoding).json() == expected
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(QUERY)
    assert post(client, streamed, "zstd").json() == expected


@pytest.mark.parametrize("encoding", PACK)
def test_what_was_compressed_in_parts_is_read_as_one(client, encoding):
    expected = client.post(URL, content=QUERY).json()
    parts = [PACK[encoding](part) for part in (QUERY[:7], QUERY[7:90], QUERY[90:])]
    assert post(client, b"".join(parts), encoding).json() == expected
    expect_error(post(client, b"".join(parts)[:-9], encoding), 400, "unreadable_body", "cut short")
    response = post(client, PACK[encoding](QUERY) + b"more", encoding)
    expect_error(response, 400, "unreadable_body", f"body: expected {encoding}")


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("spoil", [lambda b: b[:-8], lambda b: b"x" + b, lambda b: b""])
def test_a_body_without_its_encoding_is_rejected(client, encoding, spoil):
    response = post(client, spoil(PACK[encoding](QUERY)), encoding)
    expect_error(response, 400, "unreadable_body", f"body: expected {encoding}")


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, gzip"])
def test_an_unknown_encoding_is_rejected(client, encoding):
    expect_error(post(client, QUERY, encoding), 415, "unsupported_media_type", "content-encoding")


@pytest.mark.parametrize("encoding", PACK)
def test_nobody_is_kept_busy_by_parts_of_nothing(client, encoding):
    started = time.perf_counter()
    response = post(client, PACK[encoding](b"") * 50_000, encoding)
    expect_error(response, 400, "unreadable_body", "in parts of 1024 bytes or more, got less")
    assert time.perf_counter() - started < 1


def zstd_bomb(size: int, tell: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=tell)
    return compressor.compress(bytes(size))


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        ("gzip", gzip.compress(bytes(50_000_000))),
        ("zstd", zstd_bomb(500_000_000, True)),
        ("zstd", zstd_bomb(500_000_000, False)),
    ],
    ids=["gzip", "zstd that tells its size", "zstd that does not"],
)
def test_a_bomb_is_rejected_before_it_has_expanded(repository, encoding, bomb):
    with serving(repository, max_body_bytes=100_000) as client:
        assert len(bomb) < 100_000
        started = time.perf_counter()
        response = post(client, bomb, encoding)
        expect_error(response, 413, "too_large", "at most 100000 bytes when expanded")
        assert time.perf_counter() - started < 0.2


def test_the_limit_is_on_the_expanded_body(repository):
    with serving(repository, max_body_bytes=len(QUERY)) as client:
        assert post(client, PACK["gzip"](QUERY), "gzip").status_code == 200
        assert post(client, PACK["gzip"](QUERY + b" "), "gzip").status_code == 413


@pytest.fixture(scope="module")
def packing(repository):
    with serving(repository, compress_above=1000) as client:
        yield client


def raw(client, url: str, encoding: str, body: bytes = QUERY, **headers):
    """Return the response with its content still compressed."""
    headers = {"accept-encoding": encoding, **headers}
    with client.stream("POST", url, content=body, headers=headers) as response:
        response.body = b"".join(response.iter_raw())
    return response


@pytest.mark.parametrize("encoding", PACK)
def test_a_large_response_is_compressed_if_accepted(packing, encoding):
    plain = raw(packing, URL, "identity")
    assert "content-encoding" not in plain.headers
    packed = raw(packing, URL, encoding)
    assert packed.headers["content-encoding"] == encoding
    assert packed.headers["vary"] == "accept-encoding"
    assert len(packed.body) < len(plain.body) / 2
    assert UNPACK[encoding](packed.body) == plain.body


@pytest.mark.parametrize("encoding", PACK)
def test_a_streamed_response_is_compressed_piece_by_piece(packing, monkeypatch, encoding):
    monkeypatch.setattr("hsoftmax.service.api.operations._MAX_UNSLICED_VALUES", 0)
    monkeypatch.setattr("hsoftmax.service.inference.encoders.PIECE_VALUES", 100)
    plain = raw(packing, URL, "identity")
    packed = raw(packing, URL, encoding)
    assert UNPACK[encoding](packed.body) == plain.body


def test_small_responses_and_arrays_are_not_compressed(packing):
    small = raw(packing, URL, "gzip", json.dumps({"inputs": [[0.5] * HIDDEN]}).encode())
    assert "content-encoding" not in small.headers
    assert small.headers["content-length"] == str(len(small.body))
    array = raw(packing, URL, "gzip", accept="application/x-npy")
    assert "content-encoding" not in array.headers


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (b"gzip, deflate, br, zstd", b"zstd"),
        (b"gzip;q=0.5, zstd;q=0", b"gzip"),
        (b"GZIP", b"gzip"),
        (b"br", None),
        (b"gzip;q=0.0", None),
        (b"identity, *;q=0.1", None),
        (b"", None),
    ],
)
def test_the_encoding_is_one_that_the_client_accepts(header, encoding):
    assert accepted_encoding(header) == encoding


def test_a_body_that_comes_too_slowly_is_given_up(start: Start):
    server = start(body_timeout=0.5)
    connection = server.connect()
    connection.putrequest("POST", URL)
    connection.putheader("content-length", "100")
    connection.endheaders(b"{")
    started = time.monotonic()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (408, "slow_body")
    assert time.monotonic() - started < 5
