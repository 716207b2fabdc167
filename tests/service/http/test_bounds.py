"""Tests of the limits on heads, trailers and framing, and of the order of responses."""

import contextlib
import re
import time
from pathlib import Path

import pytest

from hsoftmax.service.http import bounds, protocol

from .peer import CHUNKED, LIVE, MIB, Peer, ended, post, rss, splits


def test_a_head_at_the_bound(peer: Peer):
    def head(size: int) -> bytes:
        start = b"GET / HTTP/1.1\r\nhost: a\r\nx: "
        return start + b"v" * (size - len(start) - 4) + b"\r\n\r\n"

    fits = head(bounds.MAX_HEAD_BYTES)
    assert peer.say(fits).response()[0] == 200
    assert peer.say(fits[:7000], fits[7000:30000], fits[30000:]).response()[0] == 200
    assert peer.say(head(bounds.MAX_HEAD_BYTES + 1)).refusal() == (431, "head_too_large")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_long_url(peer: Peer, parts: int):
    data = b"GET /" + b"u" * bounds.MAX_URL_BYTES + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    size = len(data) // parts + 1
    peer.say(*[data[i : i + size] for i in range(0, len(data), size)])
    assert peer.refusal() == (414, "url_too_long")


def test_many_headers(peer: Peer):
    lines = b"".join(b"x%d: y\r\n" % i for i in range(bounds.MAX_HEADERS))
    peer.say(b"GET / HTTP/1.1\r\n", lines + b"x: y\r\n\r\n")
    assert peer.refusal() == (431, "head_too_large")


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"GET / HTTP/1.1\r\nx: ", b"a" * 65536),
        (b"GET / HTTP/1.1\r\n", b"".join(b"x%d: y\r\n" % i for i in range(5000))),
        (b"GET /", b"a" * 65536),
        (b"", b"\r\n" * 30000),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"".join(b"x%d: y\r\n" % i for i in range(5000))),
        (CHUNKED + b"2\r\n{}\r\n0\r\nx: ", b"a" * 65536),
        (CHUNKED + b"2;x=", b"a" * 65536),
        (post(b"", path=b"/halves"), b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10000),
    ],
    ids=[
        "value",
        "headers",
        "url",
        "blank lines",
        "trailers",
        "trailer value",
        "extension",
        "pipelined",
    ],
)
def test_a_head_without_end(port: int, first: bytes, more: bytes):
    idle, peer, sent = rss(), Peer(port), 0
    peer.socket.sendall(first)
    with contextlib.suppress(OSError):
        while sent < 100 * MIB:
            sent += peer.socket.send(more)
    assert sent < 20 * MIB
    assert rss() - idle < 40


def test_trailers_are_no_headers(peer: Peer):
    peer.say(
        CHUNKED,
        b"1\r\na\r\n0\r\nauthorization: x\r\n",
        b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + LIVE,
    )
    told = peer.told()
    assert told["body"] == "a"
    assert [name for name, _ in told["headers"]] == ["host", "transfer-encoding"]
    assert peer.told()["path"] == "/healthz/live"


BROKEN = [
    b"garbage\r\n\r\n",
    b"GET / HTTP/1.1\r\nx y: z\r\n\r\n",
    post(b"", length=b"-1"),
    b"\x16\x03\x01\x02",
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_broken_request_during_a_response(peer: Peer, broken: bytes, at_once: bool):
    first = post(b"", path=b"/halves")
    peer.say(first + broken) if at_once else peer.say(first, broken)
    assert peer.response()[2] == b"a" * 10000 + b"b" * 10000
    assert peer.refusal() == (400, "invalid_http")


def test_a_broken_body_behind_a_request(peer: Peer):
    peer.say(post(b"", path=b"/halves") + CHUNKED + b"zz\r\n")
    assert len(peer.response()[2]) == 20000
    assert peer.refusal() == (400, "invalid_http")


def test_a_broken_body(peer: Peer):
    ended.clear()
    assert peer.say(CHUNKED + b"1\r\na\r\n", b"zz\r\n").refusal() == (400, "invalid_http")
    time.sleep(0.05)
    assert ended == ["/"]


def test_a_broken_body_after_its_response(peer: Peer):
    peer.say(CHUNKED.replace(b" / ", b" /early "), b"zz\r\n")
    assert peer.response()[0] == 413
    assert peer.closed()


@pytest.mark.parametrize("value", [b"60", b"60 ", b"60\t", b" 60", b"060", b"0" * 12 + b"60"])
def test_a_length_in_any_segments(port: int, value: bytes):
    data, seen = post(b"b" * 60, length=value), set()
    for segments in splits(data):
        peer = Peer(port).say(*segments)
        told = peer.told()
        seen.add((told["body"], dict(told["headers"])["content-length"]))
        peer.socket.close()
    assert seen == {("b" * 60, value.strip().decode())}


LENGTH, CODING = b"content-length: 3", b"transfer-encoding: "


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"content-length: 60, 60"], 400),
        ([b"content-length: +60"], 400),
        ([b"content-length: 60\x0b"], 400),
        ([b"content-length: 6_0"], 400),
        ([b"content-length:"], 400),
        ([b"content-length : 3"], 400),
        ([b"content-length: " + b"9" * 30], 400),
        ([LENGTH, LENGTH], 400),
        ([LENGTH, b"content-length: 4"], 400),
        ([LENGTH, CODING + b"chunked"], 400),
        ([CODING + b"chunked", LENGTH], 400),
        ([CODING + b"chunked", CODING + b"chunked"], 400),
        ([CODING + b"chunked, identity"], 400),
        ([CODING + b"gzip, chunked"], 501),
        ([CODING + b"gzip", CODING + b"chunked"], 501),
        ([CODING + b"identity"], 501),
        ([CODING + b"xchunked"], 501),
    ],
)
def test_unsupported_framing_is_rejected(port: int, lines: list[bytes], status: int):
    data = (
        b"\r\n".join([b"POST / HTTP/1.1", b"host: a", *lines])
        + b"\r\n\r\n"
        + b"3\r\nabc\r\n0\r\n\r\n"
    )
    for segments in splits(data)[:6]:
        peer = Peer(port)
        with contextlib.suppress(OSError):
            peer.say(*segments)
        assert peer.refusal()[0] == status


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET \x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_what_is_no_http(peer: Peer, data: bytes):
    assert peer.say(data).refusal() == (400, "invalid_http")


def test_no_private_name_of_uvicorn():
    """Attributes with an underscore must not override those of uvicorn."""
    source = Path(protocol.__file__).read_text()
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    theirs = {n for c in (HttpToolsProtocol, RequestResponseCycle, FlowControl) for n in vars(c)}
    used = set(re.findall(r"\._[a-z]\w*", source))
    assert not {name[1:] for name in used} & theirs
