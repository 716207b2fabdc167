"""Sends a matrix of any size as one response: computed by slices, encoded and sent in pieces.

Only one slice is in memory. The next one is computed once the client has taken this one.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from starlette.types import Send

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.stream.pipeline import RunInIdle
from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.responses import start_response

from .encoders import MatrixEncoder


class TruncatedError(Exception):
    """A response that has begun cannot be completed: its connection must be closed."""


async def stream(
    encoder: MatrixEncoder,
    response_type: Format,
    slices: AsyncIterator[Array],
    send: Send,
    *,
    run_in_idle: RunInIdle,
    timeout: float,
) -> None:
    """Send the slices as one response. Each piece must be taken within `timeout` seconds.

    Raises:
        ServiceError: the first slice failed, and nothing is sent yet.
        TruncatedError: a later slice failed, or the client stopped reading.
    """
    current: Array | None = await anext(slices)  # before the status is sent
    await start_response(send, response_type, encoder.length())
    await _send(send, encoder.begin(), timeout)
    while current is not None:
        pieces = encoder.pieces(current)
        while (piece := await run_in_idle(partial(next, pieces, None))) is not None:
            await _send(send, piece, timeout)
        del pieces
        current = None  # frees this slice before the next one is computed
        current = await _next(slices)
    await send({"type": "http.response.body", "body": encoder.end()})


async def _next(slices: AsyncIterator[Array]) -> Array | None:
    try:
        return await anext(slices, None)
    except Exception as error:
        raise TruncatedError("a slice failed after others were sent") from error


async def _send(send: Send, piece: bytes, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        raise TruncatedError("the client stopped reading its answer") from None
