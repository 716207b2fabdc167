"""Tests of requests on one connection: their order, any TCP segments, and bounded memory."""

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from hsoftmax.service.http import protocol

from .peer import CHUNKED, LIVE, MIB, Peer, ended, post, rss, slowest_health


def test_requests_on_one_connection(peer: Peer):
    for body in (b"", b"{}", b"x" * 100_000, b"y" * 3_000_000):
        assert peer.say(post(body)).told()["body"] == body.decode()


def test_a_body_in_chunks(peer: Peer):
    peer.say(
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"2\r\nde\r\n0\r\n\r\n",
    )
    assert peer.told()["body"] == "abcde"
    assert peer.say(LIVE).response()[0] == 200


def test_many_tiny_chunks(port: int):
    """Other connections get their turn meanwhile."""
    data = CHUNKED + b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n" + LIVE
    peers = [Peer(port) for _ in range(4)]
    senders = [threading.Thread(target=peer.say, args=(data,)) for peer in peers]
    for sender in senders:
        sender.start()
    slowest, _ = slowest_health(port, 0.5)
    assert slowest < 5  # the clients share the process and its GIL
    for sender, peer in zip(senders, peers, strict=True):
        assert peer.told()["body"] == "a" * 200_000
        assert peer.told()["path"] == "/healthz/live"
        sender.join()


def test_a_large_body_that_is_not_read_takes_turns(port: int, monkeypatch: pytest.MonkeyPatch):
    """libuv hands on up to 32 buffers of 256 KB in a turn, if the connection does not pause."""
    turn: list[int] = []
    turns: list[int] = []
    receive = protocol.BoundedProtocol.data_received

    def end_turn() -> None:
        turns.append(sum(turn))
        turn.clear()

    def counted(self: protocol.BoundedProtocol, data: bytes) -> None:
        if not turn:
            self.loop.call_soon(end_turn)
        turn.append(len(data))
        receive(self, data)

    monkeypatch.setattr(protocol.BoundedProtocol, "data_received", counted)
    peer = Peer(port).say(post(b"x" * 20 * MIB, path=b"/early"), LIVE)
    assert peer.response()[0] == 413
    assert peer.told()["path"] == "/healthz/live"
    assert max(turns) <= MIB / 2


def test_a_body_that_the_app_does_not_read_waits_at_the_client(port: int):
    """Turns must not undo the pause that uvicorn sets while a body waits for its application."""
    peer = Peer(port)
    peer.socket.setblocking(False)
    data, sent = post(b"x" * 100 * MIB, path=b"/sleeps"), 0
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            sent += peer.socket.send(data[sent : sent + MIB])
    assert sent < 30 * MIB  # the buffers of the sockets take some


def test_byte_by_byte(peer: Peer):
    for byte in post(b"abc") + post(b"def"):
        peer.socket.sendall(bytes([byte]))
    assert [peer.told()["body"], peer.told()["body"]] == ["abc", "def"]


def test_expect_100_continue(peer: Peer):
    peer.say(post(b"abc", b"expect: 100-continue")[:-3])
    while b"\r\n\r\n" not in peer.got:
        peer._more()
    assert peer.got == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.got = b""
    assert peer.say(b"abc").told()["body"] == "abc"


def test_a_response_before_the_end_of_the_body(peer: Peer):
    data = post(b"x" * 1_000_000, path=b"/early")
    peer.say(data[:100_000])
    assert peer.response()[0] == 413
    peer.say(data[100_000:], LIVE)
    assert peer.told()["path"] == "/healthz/live"


def test_keep_alive_ends(port: int, server: uvicorn.Server):
    server.config.timeout_keep_alive = 1
    peer = Peer(port)
    assert peer.say(LIVE).response()[0] == 200
    began = time.monotonic()
    assert peer.closed()
    assert 0.5 < time.monotonic() - began < 2
    server.config.timeout_keep_alive = 5


def test_keep_alive_does_not_end_a_request_that_was_held(port: int, server: uvicorn.Server):
    server.config.timeout_keep_alive = 0.1
    peer = Peer(port).say(LIVE + b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n" * 2)
    peer.response()
    assert [len(peer.response()[2]) for _ in range(2)] == [20000, 20000]
    peer.socket.close()
    peer = Peer(port).say(
        b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n"
    )
    assert [len(peer.response()[2]) for _ in range(2)] == [20000, 20000]
    assert peer.closed()
    server.config.timeout_keep_alive = 5


def test_pipelined_requests_get_responses_in_order(peer: Peer):
    bodies = [b"%d" % i * 500 for i in range(300)]
    sender = threading.Thread(target=peer.say, args=(b"".join(map(post, bodies)),))
    sender.start()
    assert [peer.told()["body"].encode() for _ in bodies] == bodies
    sender.join()
    assert peer.say(LIVE).response()[0] == 200


def test_pipelined_requests_in_segments_during_a_response(peer: Peer):
    data = post(b"abc")
    peer.say(post(b"", path=b"/halves"), data[:30], data[30:-1], data[-1:] + LIVE[:9], LIVE[9:])
    assert peer.response()[2] == b"a" * 10000 + b"b" * 10000
    assert peer.told()["body"] == "abc"
    assert peer.told()["path"] == "/healthz/live"


def test_a_large_body_behind_another_request(peer: Peer):
    body = b"z" * 3_000_000
    sender = threading.Thread(
        target=peer.say, args=(post(b"", path=b"/halves") + post(body) + LIVE,)
    )
    sender.start()
    assert len(peer.response()[2]) == 20000
    assert peer.told()["body"] == body.decode()
    assert peer.told()["path"] == "/healthz/live"
    sender.join()


@pytest.mark.parametrize(
    "request_", [b"GET /x HTTP/1.1\r\n\r\n", b"GET /big HTTP/1.1\r\n\r\n", post(b"q" * 3000)]
)
def test_peers_that_pipeline_and_never_read(port: int, request_: bytes):
    idle, blob = rss(), request_ * (2**18 // len(request_))
    peers = [Peer(port) for _ in range(20)]
    stop = threading.Event()

    def send():
        while not stop.wait(0.001):
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.socket.send(blob)

    for peer in peers:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.setblocking(False)
    sender = threading.Thread(target=send)
    sender.start()
    slowest, most = slowest_health(port, 2)
    stop.set()
    sender.join()
    for peer in peers:
        peer.socket.close()
    print(f"rss +{most - idle:.0f} MiB, health {slowest * 1e3:.0f} ms")
    assert most - idle < 100
    assert slowest < 5  # the clients share the process and its GIL


def test_an_app_that_polls_reads_no_more(port: int):
    """uvicorn resumes reading at each `receive` of an app."""
    peer = Peer(port)
    peer.socket.settimeout(0.1)
    peer.say(b"GET /polls HTTP/1.1\r\nhost: a\r\n\r\n")
    blob, sent = LIVE * 6000, 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += peer.socket.send(blob)
    assert sent < 12 * MIB  # the buffers of the kernel, and a few of the service


def test_a_peer_that_takes_nothing_is_cut(
    port: int, monkeypatch: pytest.MonkeyPatch, server: uvicorn.Server
):
    monkeypatch.setattr(protocol, "STALLED_TIMEOUT_S", 0.3)
    connections = server.server_state.connections
    while connections:  # from earlier tests
        time.sleep(0.01)
    ask = b"GET /huge HTTP/1.1\r\nhost: a\r\n%s\r\n"  # more than the kernel buffers
    last = ask % b"connection: close\r\n"
    for data in (ask % b"", last, ask % b"" + last):
        Peer(port).say(data)
    while len(connections) < 3:
        time.sleep(0.01)
    while connections:
        time.sleep(0.01)


def test_a_slow_peer_is_not_cut(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "STALLED_TIMEOUT_S", 1.0)
    peer = Peer(port)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    peer.say(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n" * 16)
    got = 0
    while got < 16 * MIB:
        data = peer.socket.recv(200_000)
        assert data
        got += len(data)
        time.sleep(0.03)


def test_every_request_gets_the_disconnect(peer: Peer):
    ended.clear()
    peer.say(b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n" + LIVE[:10])
    time.sleep(0.1)
    peer.socket.close()
    time.sleep(0.2)
    assert ended == ["/waits"]
