"""What is there already costs no timer.

A request's body has usually arrived with its headers. `asyncio.timeout` takes as long as a tenth
of a tiny query, so that it is set only for what has to be waited for.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises TimeoutError if it has to wait for longer."""
    try:
        waiting = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _resumed(coroutine, waiting)


@types.coroutine
def _resumed(coroutine: Coroutine[Any, Any, T], waiting: object) -> Generator[Any, Any, T]:
    """The rest of a coroutine that has been started by hand and waits for something."""
    try:
        yield waiting
    except BaseException:
        coroutine.close()
        raise
    return (yield from coroutine.__await__())
