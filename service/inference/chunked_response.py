"""A matrix of any size as an answer: slice by slice computed, piece by piece written and sent.

No more than one slice is held, and the next is not computed before the client has taken this one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol, TypeVar

from starlette.types import Send

from hsoftmax.models.arrays import Array
from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.responses import begin_answer

from .encoders import Encoder

T = TypeVar("T")


class TruncatedError(Exception):
    """An answer that was begun cannot be finished: its connection must be cut."""


class Elsewhere(Protocol):
    """Runs a function where it holds nobody up."""

    async def __call__(self, function: Callable[[], T]) -> T: ...


async def stream(
    sheet: Encoder,
    form: Format,
    slices: AsyncIterator[Array],
    send: Send,
    *,
    elsewhere: Elsewhere,
    patience: float,
) -> None:
    """Send the slices as one answer; a piece that nobody takes within `patience` s ends it.

    Raises:
        ServiceError: as the first slice does.
        TruncatedError: as a later one did, or the client stopped reading.
    """
    some: Array | None = await anext(slices)  # before anything is promised
    await begin_answer(send, form, sheet.length())
    await _send(send, sheet.begin(), patience)
    while some is not None:
        pieces = sheet.pieces(some)
        while (piece := await elsewhere(partial(next, pieces, None))) is not None:
            await _send(send, piece, patience)
        del pieces
        some = None  # else two slices would be held
        some = await _next(slices)
    await send({"type": "http.response.body", "body": sheet.end()})


async def _next(slices: AsyncIterator[Array]) -> Array | None:
    try:
        return await anext(slices, None)
    except Exception as error:
        raise TruncatedError("a slice failed after others were sent") from error


async def _send(send: Send, piece: bytes, patience: float) -> None:
    try:
        async with asyncio.timeout(patience):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        raise TruncatedError("the client stopped reading its answer") from None
