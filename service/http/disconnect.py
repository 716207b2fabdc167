"""A client that leaves takes its work with it."""

import asyncio
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def cancel_on_disconnect(receive: Receive, future: asyncio.Future[T]) -> T:
    """The future's result; cancel it when the client, whose body has been read, leaves.

    Raises:
        ClientDisconnect: the client left.
    """
    watcher = asyncio.ensure_future(_departure(receive))
    watcher.add_done_callback(lambda _: future.cancel())
    try:
        return await future
    except asyncio.CancelledError:
        if watcher.done() and not watcher.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
