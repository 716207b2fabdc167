"""Awaits a function that may hang, such as reading files, without keeping the process alive.

`asyncio.to_thread` is no alternative: at its end the process waits for every thread of the
executor.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the function's result, from a daemon thread of its own.

    If the call is cancelled, the thread still runs to its end.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # cancelling the caller does not stop the thread

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name=function.__name__).start()
    return await asyncio.wrap_future(future)
