"""Reads a request body into memory, within a size limit and a timeout."""

import asyncio
import types
from collections.abc import Coroutine, Generator, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from hsoftmax.service.errors import InvalidQuery, SlowBody, TooLarge
from hsoftmax.service.settings import Settings

from .body_budget import BodyBudget, Reservation
from .decompression import decompress


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, limits: Settings, budget: BodyBudget
) -> bytes:
    """Read the whole body, and decompress it if it has a content-encoding.

    Raises:
        UnsupportedMediaType: the content-encoding is unknown.
        Unreadable: the body does not have its content-encoding.
        TooLarge: content-length or the body is larger than the limit.
        SlowBody: the body did not arrive within the timeout.
        Overloaded: too many bytes of bodies are being received at the same time.
        ClientDisconnect: the client disconnected.
    """
    if (length := headers.get(b"content-length")) is not None:
        _expect_length(length, limits.max_body_bytes)
    try:
        reading = _read(receive, limits.max_body_bytes, budget)
        body = await with_timeout(limits.body_timeout, reading)
    except TimeoutError:
        raise SlowBody(f"body: expected all of it within {limits.body_timeout:g} s") from None
    encoding = headers.get(b"content-encoding", b"")
    if encoding in (b"", b"identity"):
        return body
    name = encoding.decode("latin-1").strip().lower()
    return await asyncio.to_thread(decompress, body, name, limits.max_body_bytes)


async def _read(receive: Receive, limit: int, budget: BodyBudget) -> bytes:
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return _expect_size(message.get("body", b""), limit)
    with budget.reservation() as reservation:
        return await _read_parts(message, receive, limit, reservation)


async def _read_parts(
    message: Message, receive: Receive, limit: int, reservation: Reservation
) -> bytes:
    parts = []
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        parts.append(part)
        reservation.add(len(part))
        if reservation.num_bytes > limit:
            raise _too_large(limit, "more")
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def _expect_size(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit, str(len(body)))
    return body


def _expect_length(content_length: bytes, limit: int) -> None:
    if not content_length.isdigit():
        raise InvalidQuery("content-length: expected a number")
    if int(content_length) > limit:
        raise _too_large(limit, content_length.decode())


def _too_large(limit: int, got: str) -> TooLarge:
    return TooLarge(f"body: expected at most {limit} bytes, got {got}")


T = TypeVar("T")


async def with_timeout(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine with a timeout. Raises TimeoutError.

    The timer starts only if the coroutine suspends: `asyncio.timeout` costs about a tenth of the
    time of a small request.
    """
    try:
        waiting = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _resume(coroutine, waiting)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, T], waiting: object) -> Generator[Any, Any, T]:
    """Run the rest of a coroutine that has suspended after its first `send`."""
    try:
        yield waiting
    except BaseException:
        coroutine.close()
        raise
    return (yield from coroutine.__await__())
