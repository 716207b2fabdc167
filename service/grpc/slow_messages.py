"""Bounds the memory of messages that arrive slowly.

gRPC gives a message to the service when all of it has arrived, and does not tell its length before.
So a message that has not arrived within a second counts with the largest size that it may have, in
the budget that HTTP bodies share.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from hsoftmax.service.errors import Overloaded, SlowBody
from hsoftmax.service.http.body_budget import BodyBudget
from hsoftmax.service.settings import Settings

T = TypeVar("T")

_QUICK_S = 1.0  # a message that is sent with its call arrives sooner


async def arrive(
    reading: Awaitable[T], settings: Settings, budget: BodyBudget, seconds: float
) -> T:
    """Await a message, at most so many seconds.

    Raises:
        SlowBody: it did not arrive within that time.
        Overloaded: other slow messages and bodies take the whole budget.
    """
    loop = asyncio.get_running_loop()
    num_bytes = min(settings.max_body_bytes, budget.max_bytes)
    refused: Overloaded | None = None

    with budget.reservation() as reservation:

        def reserve() -> None:
            nonlocal refused
            try:
                reservation.add(num_bytes)
            except Overloaded as error:
                refused = error
                timeout.reschedule(loop.time())

        timer = loop.call_later(_QUICK_S, reserve)
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await reading
        except TimeoutError:
            if refused is not None:
                raise refused from None
            raise SlowBody(f"message: expected all of it within {seconds:g} s") from None
        finally:
            timer.cancel()
