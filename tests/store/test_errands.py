"""Whoever asks for the like is answered together, and whoever has given up is not asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
import pytest

from holdfast.errors import Invalid
from holdfast.store.errands import Errands


async def test_all_who_ask_the_same_get_the_same_answer() -> None:
    errands = Errands[str, int]()
    waiting = [errands.add(key) for key in ("one", "two", "one")]
    assert errands.keys() == ["one", "two"]
    assert errands.answer("one", 1)
    assert errands.keys() == ["two"]
    assert errands.answer("two", 2)
    assert await asyncio.gather(*waiting) == [1, 2, 1]
    assert errands.keys() == []


async def test_one_that_cannot_be_answered_fails_alone() -> None:
    errands = Errands[str, int]()
    bad, good = errands.add("bad"), errands.add("good")
    gone = errands.add("bad")
    gone.cancel()

    async def ask(keys: Sequence[str]) -> None:
        if "bad" in keys:
            raise psycopg.DataError("no")
        for key in keys:
            errands.answer(key, 1)

    await errands.run(ask)
    with pytest.raises(Invalid, match="cannot be the name"):
        await bad
    assert await good == 1
    assert errands.keys() == []


async def test_what_nobody_waits_for_any_more_is_not_asked_and_an_answer_is_told_to_nobody() -> None:
    errands = Errands[str, int]()
    gone, stays = errands.add("both"), errands.add("both")
    alone = errands.add("alone")
    gone.cancel()
    alone.cancel()
    assert errands.keys() == ["both"]
    assert errands.answer("both", 2)
    assert await stays == 2
    late = errands.add("late")
    assert errands.keys() == ["late"]
    late.cancel()  # while it is asked
    assert not errands.answer("late", 3)
