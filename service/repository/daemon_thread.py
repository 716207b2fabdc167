"""Awaits work on a thread that may hang, such as reading files, without keeping the process alive.

`asyncio.to_thread` does not do: the process waits at its end for every thread of the executor.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's result, from a daemon thread of its own. If cancelled, the thread goes on."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it cannot be cancelled any more, only be left

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name=function.__name__).start()
    return await asyncio.wrap_future(future)
