"""Tests of reading a body: its length is checked first, and its timer starts only if it waits."""

import asyncio
from pathlib import Path

import pytest

from hsoftmax.service import Settings
from hsoftmax.service.errors import TooLarge
from hsoftmax.service.http.body import read_body, with_timeout
from hsoftmax.service.http.body_budget import BodyBudget


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


def test_a_length_beyond_the_limit_is_refused_before_the_body_is_read():
    async def receive() -> dict:
        raise AssertionError("the body was read")

    limits = Settings(repository=Path("unused"), max_body_bytes=100)
    budget = BodyBudget(1000)
    with pytest.raises(TooLarge, match="body: expected at most 100 bytes, got 101"):
        asyncio.run(read_body({b"content-length": b"101"}, receive, limits, budget))


def test_a_length_at_the_limit_is_read():
    async def receive() -> dict:
        return {"type": "http.request", "body": b"x" * 100, "more_body": False}

    limits = Settings(repository=Path("unused"), max_body_bytes=100)
    body = asyncio.run(read_body({b"content-length": b"100"}, receive, limits, BodyBudget(1000)))
    assert body == b"x" * 100
