"""Threads of the sea take turns, and time passes while they wait."""

from __future__ import annotations

import asyncio

from holdfast.testing.turns import Ended, Turns, TurnWorker, may_wait, wait
from holdfast.testing.virtual import Process, VirtualLoop


def test_a_thread_that_waits_lets_the_loop_go_on() -> None:
    loop, order = VirtualLoop(), list[str]()

    def work(name: str, seconds: float) -> str:
        assert may_wait()
        order.append(f"{name} begins")
        wait(seconds)
        order.append(f"{name} ends at {loop.time():g}")
        return name

    async def both() -> list[str]:
        turns = Turns(loop)
        slow = loop.run_in_executor(turns, work, "slow", 3.0)
        fast = loop.run_in_executor(turns, work, "fast", 1.0)
        names = [await slow, await fast]
        turns.end()
        return names

    assert loop.run_until_complete(both()) == ["slow", "fast"]
    assert order == ["slow begins", "fast begins", "fast ends at 1", "slow ends at 3"]
    loop.close()


def test_the_loop_itself_does_not_wait() -> None:
    assert not may_wait()
    wait(1e9)


def test_of_a_process_that_was_killed_no_thread_goes_on() -> None:
    loop, order = VirtualLoop(), list[str]()
    process = Process("a server")
    turns = process.run(Turns, loop)

    def work() -> None:
        try:
            wait(1.0)
            order.append("went on")
        except Ended:
            order.append("ended")
            raise

    async def kill() -> None:
        turns.submit(work)
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5.0)

    loop.run_until_complete(kill())
    assert order == []
    turns.end()
    assert order == ["ended"]
    loop.close()


def test_who_waits_when_all_threads_end_holds_nobody_up() -> None:
    loop = VirtualLoop()

    async def end() -> float:
        turns = Turns(loop)
        turns.submit(wait, 1.0)
        await asyncio.sleep(0.5)
        turns.end()
        await asyncio.sleep(5.0)
        return loop.time()

    assert loop.run_until_complete(end()) == 5.5
    loop.close()


def test_a_worker_finishes_what_it_is_at_before_it_stops() -> None:
    loop, done = VirtualLoop(), list[float]()

    def work() -> None:
        wait(1.0)
        done.append(loop.time())

    async def some() -> None:
        turns = Turns(loop)
        worker = TurnWorker(turns)
        worker.start(work)
        worker.wake()
        await asyncio.sleep(0.5)
        worker.wake()
        await worker.stop()
        turns.end()

    loop.run_until_complete(some())
    assert done == [1.0, 2.0]
    loop.close()
