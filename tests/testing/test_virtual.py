"""Time passes at once, in the same order each time; and what is stopped or killed does nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast.testing.virtual import Endless, Process, Stuck, VirtualLoop, bury, expecting_an_end, seeded

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_an_hour_takes_no_time(loop: VirtualLoop) -> None:
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600
    assert time.monotonic() - began < 5


def test_what_is_due_at_the_same_time_happens_in_the_order_in_which_it_was_asked_for(loop: VirtualLoop) -> None:
    happened: list[int] = []
    for number in range(100):
        loop.call_at(5.0, happened.append, number)
    loop.run_until_complete(asyncio.sleep(10))
    assert happened == list(range(100))


def test_when_everybody_waits_for_ever_it_is_said(loop: VirtualLoop) -> None:
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())


def test_when_somebody_goes_on_for_ever_and_time_does_not_it_is_said(loop: VirtualLoop) -> None:
    def spin() -> None:
        while True:
            pass

    loop.call_at(5.0, spin)
    with pytest.raises(Endless, match="no time has passed"), expecting_an_end(loop, 0.05):
        loop.run_until_complete(asyncio.sleep(9))
    with pytest.raises(Endless), expecting_an_end(loop, 0.05):
        loop.run_until_complete(yield_for_ever())


def test_whoever_works_while_time_passes_may_do_it_for_long(loop: VirtualLoop) -> None:
    async def work() -> None:
        began = time.process_time()
        while time.process_time() < began + 0.3:
            await asyncio.sleep(0.001)

    with expecting_an_end(loop, 0.05):
        loop.run_until_complete(work())


async def yield_for_ever() -> None:
    while True:
        await asyncio.sleep(0)


async def tick(seen: list[float], loop: VirtualLoop) -> None:
    try:
        while True:
            seen.append(loop.time())
            await asyncio.sleep(1)
    finally:
        seen.append(-1)


def test_a_process_that_is_stopped_does_what_it_has_missed_when_it_goes_on(loop: VirtualLoop) -> None:
    process, seen = Process("one"), list[float]()
    process.run(loop.create_task, tick(seen, loop))
    loop.call_at(2.5, process.stop)
    loop.call_at(7.25, process.go_on)
    loop.run_until_complete(asyncio.sleep(9))
    assert seen == [0, 1, 2, 7.25, 8.25]
    process.kill()


def test_of_a_process_that_is_killed_nothing_ever_runs_again_not_even_what_was_to_run_in_the_end(
    loop: VirtualLoop,
) -> None:
    process, seen = Process("one"), list[float]()
    process.run(loop.create_task, tick(seen, loop))
    loop.call_at(1.5, process.kill)
    loop.run_until_complete(asyncio.sleep(9))
    assert seen == [0, 1]
    bury(loop, [process])


def test_what_is_left_of_a_process_ends_when_it_is_buried_and_not_when_its_memory_is_freed(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, ended, complaints = Process("one"), list[str](), list[Any]()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    async def wait(name: str) -> None:
        try:
            await loop.create_future()
        finally:
            task = asyncio.current_task()  # which complains where no loop runs
            ended.append(f"{name} of {None if task is None else task.get_name()}")
            await asyncio.sleep(1)  # a connection says goodbye
            ended.append(f"{name} goes on")

    async def items() -> AsyncIterator[int]:
        await wait("generator")
        yield 1

    async def read() -> None:
        async for _ in items():
            pass

    @asynccontextmanager
    async def held() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await wait("manager")

    async def hold() -> None:
        async with held():
            await loop.create_future()

    process.run(lambda: loop.create_task(wait("task"), name="a"))
    process.run(lambda: loop.create_task(read(), name="b"))
    process.run(lambda: loop.create_task(hold(), name="c"))
    loop.call_at(1.5, process.kill)
    loop.run_until_complete(asyncio.sleep(9))
    bury(loop, [process])
    assert ended == ["task of a", "generator of b", "manager of c"]
    process.tasks.clear()
    loop.close()
    gc.collect()
    assert ended == ["task of a", "generator of b", "manager of c"]
    assert complaints == []


def test_what_a_process_begins_belongs_to_it(loop: VirtualLoop) -> None:
    process, seen = Process("one"), list[float]()

    async def begin() -> None:
        asyncio.get_running_loop().call_later(3, seen.append, 1)
        loop.create_task(tick(seen, loop))

    process.run(loop.create_task, begin())
    loop.call_at(0.5, process.kill)
    loop.run_until_complete(asyncio.sleep(9))
    assert seen == [0]
    bury(loop, [process])


def test_threads_are_not_needed(loop: VirtualLoop) -> None:
    async def work() -> tuple[int, int]:
        return await loop.run_in_executor(None, max, 1, 2), await asyncio.to_thread(min, 1, 2)

    assert loop.run_until_complete(work()) == (2, 1)


def test_dice_and_clocks_follow_from_the_seed(loop: VirtualLoop) -> None:
    def throw(seed: int) -> tuple[Any, ...]:
        with seeded(seed, loop) as dice:
            return dice.random(), random.random(), os.urandom(8), secrets.token_hex(8), time.time(), time.monotonic()

    before = random.getstate()
    assert throw(1) == throw(1) != throw(2)
    assert random.getstate() == before
    assert time.time() != throw(1)[4]
