"""A head that is known is read as it was the first time, or not at all."""

import httptools
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from service.heads import Head, Heads

_LONGEST, _MOST, _MANY = 2**13, 256, 64


class Read:
    """One request or more, as uvicorn's parser reads them."""

    def __init__(self, data: bytes) -> None:
        self.requests: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
        self._whole = 0
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            self._whole = -1
        except httptools.HttpParserUpgrade:
            self._whole = -1

    def only(self) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | None:
        """The one request that the data is; None if it is anything else."""
        return self.requests[0] if self._whole == len(self.requests) == 1 else None

    def on_message_begin(self) -> None:
        self.requests.append((b"", [], b""))

    def on_url(self, url: bytes) -> None:
        self._change(url, [], b"")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._change(b"", [(name.lower(), value)], b"")

    def on_body(self, body: bytes) -> None:
        self._change(b"", [], body)

    def on_message_complete(self) -> None:
        self._whole += 1

    def _change(self, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        before = self.requests[-1]
        self.requests[-1] = before[0] + url, before[1] + headers, before[2] + body


def learn(heads: Heads[str], data: bytes, known: str = "known") -> None:
    """What the connection does of data that is one request."""
    if (request := Read(data).only()) is not None:
        url, headers, body = request
        heads.learn(data, Head(url.decode("latin-1"), b"", headers, dict(headers)), body, known)


def knows(heads: Heads[str], data: bytes) -> bool:
    return heads.find(data) is not None


def request(body: bytes, *more: bytes, length: bytes | None = None) -> bytes:
    length = b"%d" % len(body) if length is None else length
    lines = (b"POST /a HTTP/1.1", b"host: a", b"content-length: " + length, *more, b"", body)
    return b"\r\n".join(lines)


def test_a_head_is_known_whatever_the_length_of_the_body():
    heads = Heads[str]()
    assert heads.find(request(b"one")) is None
    learn(heads, request(b"one"))
    for body in (b"", b"two", b"\r\n\r\n", b"content-length: 3", b"x" * 100_000):
        assert heads.find(request(body)) == ("known", body)


@pytest.mark.parametrize(
    "name", [b"content-length: ", b"Content-Length: ", b"CONTENT-LENGTH: ", b"content-length:"]
)
def test_the_length_is_found_in_both_usual_spellings(name):
    heads = Heads[str]()
    data = request(b"one").replace(b"content-length: ", name)
    learn(heads, data)
    assert knows(heads, data) == (name in (b"content-length: ", b"Content-Length: "))


@pytest.mark.parametrize(
    "other",
    [
        request(b"one").replace(b"/a", b"/b"),
        request(b"one").replace(b"POST", b"PUT"),
        request(b"one", b"accept: */*"),
        request(b"one").replace(b"host: a\r\n", b""),
        request(b"one")[:-1],
        request(b"one") + b"x",
        request(b"one") + request(b"one"),
        request(b"one", length=b"2"),
        request(b"one", length=b"4"),
        request(b"one", length=b"3 "),
        request(b"one", length=b"+3"),
        request(b"one", length=b"0x3"),
        request(b"one", length=b"3\r\n "),
        request(b"one", length=b"\xb3"),
        request(b"one", length=b""),
        request(b"one", length=b"0000000003"),
        request(b"one", b"content-length: 3"),
        request(b"one", b"transfer-encoding: chunked"),
        b"\r\n" + request(b"one"),
        b"",
        b"\r\n\r\n",
    ],
)
def test_what_is_another_request_is_not_known(other):
    heads = Heads[str]()
    learn(heads, request(b"one"))
    assert not knows(heads, other)


@pytest.mark.parametrize(
    "header",
    [
        b"transfer-encoding: identity",
        b"upgrade: websocket",
        b"expect: 100-continue",
        b"x-request-id: 1",
        b"traceparent: 00-1-1-00",
        b"b3: 1-1",
        b"X-Amzn-Trace-Id: Root=1",
        b"date: today",
        b"x: " + b"y" * _LONGEST,
    ],
)
def test_what_is_like_no_other_is_not_learnt(header):
    heads = Heads[str]()
    learn(heads, request(b"one", header))
    assert not knows(heads, request(b"one", header))


@pytest.mark.parametrize("number", [_MANY, _MANY + 1])
def test_a_head_that_is_all_names_is_not_learnt(number):
    heads = Heads[str]()
    data = request(b"one", *[b"x: y"] * (number - 2))
    learn(heads, data)
    assert knows(heads, data) == (number == _MANY)


def test_what_was_read_otherwise_is_not_learnt():
    head = Head("/a", b"", [], {})
    for data, body in ((request(b"one"), b"two"), (request(b"one", length=b"2"), b"on")):
        heads = Heads[str]()
        heads.learn(data, head, body, "known")
        assert not knows(heads, data)


def test_those_that_came_last_are_kept():
    heads = Heads[str]()
    learn(heads, request(b"", b"often: asked"))
    learn(heads, request(b"", b"once: asked"))
    for i in range(_MOST - 1):
        learn(heads, request(b"", b"x: %d" % i))
        assert knows(heads, request(b"", b"often: asked"))
    assert not knows(heads, request(b"", b"once: asked"))
    assert knows(heads, request(b"", b"x: 0"))


LINES = st.lists(
    st.sampled_from(
        [
            b"host: a",
            b"content-length: 3",
            b"Content-Length: 3",
            b"Content-length: 3",
            b"content-length:3",
            b"content-length: 03",
            b"content-length: 3 ",
            b"x-content-length: 9",
            b"a: b\r\n content-length: 9",
            b"a: \r\ncontent-length: 3",
            b"connection: close",
            b"transfer-encoding: chunked",
            b"a: b\ncontent-length: 5",
            b"a:\r",
            b"",
        ]
    ),
    max_size=4,
)
BODIES = st.sampled_from(
    [
        b"",
        b"one",
        b"ones",
        b"\r\n\r\n",
        b"3\r\none\r\n0\r\n\r\n",
        request(b""),
        b"content-length: 1",
    ]
)


STARTS = st.sampled_from([b"POST /a HTTP/1.1", b"POST /a HTTP/1.0", b"\r\nPOST /a HTTP/1.1"])
LENGTHS = st.sampled_from([b"content-length: ", b"Content-Length: "])


@given(STARTS, LINES, LENGTHS, LINES, BODIES, BODIES)
def test_what_is_known_is_what_the_parser_reads(start, before, name, after, first, second):
    def one(body: bytes) -> bytes:
        return b"\r\n".join((start, *before, name + b"%d" % len(body), *after, b"", body))

    heads = Heads[str]()
    learn(heads, one(first))
    found = heads.find(one(second))
    event(f"known: {found is not None}")
    if found is None:
        return
    taught, request = Read(one(first)).only(), Read(one(second)).only()
    assert taught is not None
    assert request is not None
    assert found[1] == request[2]
    assert _but_length(request) == _but_length(taught)


def _but_length(request: tuple[bytes, list[tuple[bytes, bytes]], bytes]) -> tuple:
    url, headers, _ = request
    return url, [one for one in headers if one[0] != b"content-length"]
