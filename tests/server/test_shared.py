"""Many who ask the same at once are one question, and nobody is given an answer that is older than what they asked."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.server.shared import Shared


class Oracle:
    """Answers when it is let, with how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = asyncio.Event()

    async def __call__(self, key: str) -> int:
        self.asked.append(key)
        number = len(self.asked)
        await self.let.wait()
        if key == "wrong":
            raise KeyError(key)
        return number


async def test_who_asks_at_once_is_answered_at_once() -> None:
    oracle = Oracle()
    shared = Shared(oracle)
    oracle.let.set()
    assert await asyncio.gather(*(shared(key) for key in "aabab")) == [1, 1, 2, 1, 2]
    assert oracle.asked == ["a", "b"]
    assert await shared("a") == 3


async def test_who_asks_while_it_is_asked_gets_the_next_answer() -> None:
    oracle = Oracle()
    shared = Shared(oracle)
    first = asyncio.create_task(shared("a"))
    while not oracle.asked:
        await asyncio.sleep(0)
    later = [asyncio.create_task(shared("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert oracle.asked == ["a"]  # one at a time
    oracle.let.set()
    assert await asyncio.gather(first, *later) == [1, 2, 2, 2]


async def test_a_failure_is_told_to_all_and_the_next_one_asks_anew() -> None:
    oracle = Oracle()
    shared = Shared(oracle)
    oracle.let.set()
    answers = await asyncio.gather(shared("wrong"), shared("wrong"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [KeyError, KeyError]
    with pytest.raises(KeyError):
        await shared("wrong")
    assert len(oracle.asked) == 2


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    oracle = Oracle()
    shared = Shared(oracle)
    gone, stays = asyncio.create_task(shared("a")), asyncio.create_task(shared("a"))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    oracle.let.set()
    assert await stays == 1
