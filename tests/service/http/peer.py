"""A client that sends exact bytes over a socket, and a small application that echoes requests."""

import asyncio
import contextlib
import json
import os
import socket
import time

LIVE = b"GET /healthz/live HTTP/1.1\r\nhost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
ended: list[str] = []  # paths whose application got a disconnect
MIB = 2**20


async def echo_app(scope, receive, send) -> None:
    """Respond with the request as JSON. Some paths have a special behaviour."""
    path = scope["path"]

    async def start(status=200, length=None) -> None:
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(data: bytes, more=False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path == "/early":
        await start(413, 2)
        return await body(b"{}")
    if path == "/sleeps":
        await asyncio.sleep(3)
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return ended.append(path)
        data += message["body"]
        if not message["more_body"]:
            break
    if path == "/halves":
        await start(length=20000)
        await body(b"a" * 10000, more=True)
        await asyncio.sleep(0.3)
        return await body(b"b" * 10000)
    if path in ("/big", "/huge"):
        size = MIB if path == "/big" else 30 * MIB
        await start(length=size)
        return await body(b"x" * size)
    if path == "/polls":  # as `request.is_disconnected()` does
        for _ in range(50):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.02)
    if path == "/waits":
        while (await receive())["type"] != "http.disconnect":
            pass
        return ended.append(path)
    headers = [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]]
    told = {
        "method": scope["method"],
        "path": path,
        "body": data.decode("latin-1"),
        "headers": headers,
    }
    response = json.dumps(told).encode()
    await start(length=len(response))
    await body(response)


opened: list["Peer"] = []


class Peer:
    """A client that sends exactly the given bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(5)
        self.got = b""
        opened.append(self)

    def say(self, *segments: bytes) -> "Peer":
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, segment in enumerate(segments):
            if number:
                time.sleep(0.03)
            self.socket.sendall(segment)
        return self

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """Read one response that has a content-length."""
        while b"\r\n\r\n" not in self.got:
            self._more()
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in fields)
        length = int(headers["content-length"])
        while len(self.got) < length:
            self._more()
        body, self.got = self.got[:length], self.got[length:]
        return int(line.split()[1]), headers, body

    def told(self) -> dict:
        status, _, body = self.response()
        assert status == 200
        return json.loads(body)

    def refusal(self) -> tuple[int, str]:
        """Read an error response in the JSON shape, and the end of the connection."""
        status, headers, body = self.response()
        error = json.loads(body)
        assert set(error) == {"error", "code", "request_id"}
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"] == error["request_id"]
        assert headers["connection"] == "close"
        assert self.closed()
        return status, error["code"]

    def closed(self) -> bool:
        """Return True if the server has closed the connection."""
        try:
            return self.got + self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"closed after {self.got!r}"
        self.got += data


def rss() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def slowest_health(port: int, seconds: float) -> tuple[float, float]:
    """Request health repeatedly; return the longest wait in seconds, and the peak memory in MiB."""
    slowest = most = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        peer = Peer(port)
        assert peer.say(LIVE).response()[0] == 200
        peer.socket.close()
        slowest, most = max(slowest, time.monotonic() - began), max(most, rss())
        time.sleep(0.01)
    return slowest, most


def post(
    body: bytes, *headers: bytes, path: bytes = b"/echo", length: bytes | None = None
) -> bytes:
    size = b"%d" % len(body) if length is None else length
    lines = [b"POST %s HTTP/1.1" % path, b"host: a", *headers, b"content-length: " + size]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def splits(data: bytes) -> list[list[bytes]]:
    """Return ways to send the bytes: whole, split at every line and body edge, byte by byte."""
    head = data.index(b"\r\n\r\n")
    cuts = [[], [head], [head + 2], [head + 4], [head + 5], [20], [20, head + 4, len(data) - 1]]
    return [[data[a:b] for a, b in zip([0, *cut], [*cut, len(data)], strict=True)] for cut in cuts]
