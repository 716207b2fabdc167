"""Tests of `with_timeout`, whose timer starts only if the coroutine suspends."""

import asyncio

import pytest

from hsoftmax.service.http.body import with_timeout


async def _after(pauses: int) -> str:
    for _ in range(pauses):
        await asyncio.sleep(0)
    return "done"


@pytest.mark.parametrize("pauses", [0, 1, 5])
def test_the_result_comes_through(pauses):
    assert asyncio.run(with_timeout(10, _after(pauses))) == "done"


@pytest.mark.parametrize("pauses", [0, 3])
def test_an_error_comes_through(pauses):
    async def broken() -> None:
        await _after(pauses)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(with_timeout(10, broken()))


@pytest.mark.parametrize("pauses", [0, 3])
def test_what_takes_longer_is_ended(pauses):
    ended = []

    async def endless() -> None:
        try:
            await _after(pauses)
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        asyncio.run(with_timeout(0.01, endless()))
    assert ended == [True]
