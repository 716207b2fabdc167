"""Tests that an upgrade is ignored, and that the body of its request is kept."""

import pytest

from .peer import LIVE, Peer, post, splits

UPGRADES = {
    "java": [
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAEAAEAAAAIAAAAA",
    ],
    "two lines": [b"Upgrade: h2c", b"Connection: keep-alive", b"connection: uPgrade"],
    "websocket": [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: x",
    ],
    "unknown": [b"Connection: upgrade", b"Upgrade: foo/2, websocket"],
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
def test_an_upgrade_is_ignored(port: int, upgrade: list[bytes]):
    data = post(LIVE, *upgrade)  # the body looks like a request
    for segments in splits(data):
        peer = Peer(port).say(*segments)
        told = peer.told()
        assert (told["method"], told["path"], told["body"]) == ("POST", "/echo", LIVE.decode())
        assert peer.say(post(b"next")).told()["body"] == "next"


def test_an_upgrade_byte_by_byte(peer: Peer):
    for byte in post(LIVE, *UPGRADES["java"]) + post(b"next"):
        peer.socket.sendall(bytes([byte]))
    assert peer.told()["body"] == LIVE.decode()
    assert peer.told()["body"] == "next"


def test_an_upgrade_with_chunks(peer: Peer):
    head = (
        b"POST / HTTP/1.1\r\n"
        + b"\r\n".join(UPGRADES["java"])
        + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    peer.say(head + b"3\r\nabc\r\n", b"0\r\n\r\n" + post(b"next"))
    assert peer.told()["body"] == "abc"
    assert peer.told()["body"] == "next"


def test_a_handshake_is_a_get(peer: Peer):
    lines = [b"GET /ws HTTP/1.1", b"host: a", *UPGRADES["websocket"]]
    told = peer.say(b"\r\n".join(lines) + b"\r\n\r\n").told()
    assert (told["method"], told["path"]) == ("GET", "/ws")


def test_upgrades_in_a_pipeline(peer: Peer):
    data = (
        post(b"", path=b"/halves")
        + post(b"one", *UPGRADES["java"])
        + post(b"two", *UPGRADES["unknown"])
    )
    peer.say(data + post(b"three"))
    assert len(peer.response()[2]) == 20000
    assert [peer.told()["body"] for _ in range(3)] == ["one", "two", "three"]


def test_a_large_body_with_an_upgrade(peer: Peer):
    body = b"w" * 3_000_000
    assert peer.say(post(body, *UPGRADES["java"])).told()["body"] == body.decode()


def test_an_upgrade_in_http_1_0(peer: Peer):
    data = post(b"abc", *UPGRADES["java"]).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert peer.say(data).told()["body"] == "abc"
    assert peer.closed()


def test_connect(peer: Peer):
    assert peer.say(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n").refusal() == (
        501,
        "not_supported",
    )
