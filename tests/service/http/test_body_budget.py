"""The bytes of all bodies that are being received at the same time have a limit together."""

import asyncio

import pytest

from hsoftmax.service import Settings
from hsoftmax.service.errors import Overloaded, TooLarge
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.body_budget import BodyBudget

PART = b"x" * 100


class Sender:
    """A client that sends parts of 100 bytes, each when it is told to."""

    def __init__(self, parts: int) -> None:
        self.left = parts
        self.next = asyncio.Semaphore(0)

    async def receive(self) -> dict:
        await self.next.acquire()
        self.left -= 1
        return {"type": "http.request", "body": PART, "more_body": self.left > 0}


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_bodies_share_the_budget_and_give_it_back(tmp_path):
    limits = Settings(repository=tmp_path, max_body_bytes=1000)

    async def main() -> None:
        budget = BodyBudget(300)
        senders = [Sender(2), Sender(3)]
        reading = [
            asyncio.create_task(read_body({}, sender.receive, limits, budget)) for sender in senders
        ]
        for sender in (senders[0], senders[1], senders[1]):
            sender.next.release()
            await settle()
        assert budget.reserved == 300
        senders[1].next.release()
        with pytest.raises(Overloaded, match="at most 300 bytes received at once"):
            await reading[1]
        assert budget.reserved == 100
        senders[0].next.release()
        assert await reading[0] == PART * 2
        assert budget.reserved == 0

    asyncio.run(main())


def test_a_body_that_is_too_large_gives_its_bytes_back(tmp_path):
    limits = Settings(repository=tmp_path, max_body_bytes=250)

    async def main() -> None:
        budget, sender = BodyBudget(1000), Sender(5)
        for _ in range(5):
            sender.next.release()
        with pytest.raises(TooLarge):
            await read_body({}, sender.receive, limits, budget)
        assert budget.reserved == 0

    asyncio.run(main())


def test_a_body_that_came_whole_costs_no_budget(tmp_path):
    async def main() -> None:
        budget, sender = BodyBudget(1), Sender(1)
        sender.next.release()
        limits = Settings(repository=tmp_path)
        assert await read_body({}, sender.receive, limits, budget) == PART

    asyncio.run(main())
