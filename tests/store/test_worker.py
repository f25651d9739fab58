"""Work that is asked for is done, in a thread or in the loop, and never twice at once."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from holdfast.store.worker import InlineWorker, ThreadWorker, Worker


@pytest.fixture(params=["thread", "inline"])
def worker(request: pytest.FixtureRequest) -> Worker:
    return ThreadWorker("test-worker") if request.param == "thread" else InlineWorker()


async def test_what_is_asked_for_is_done(worker: Worker) -> None:
    waiting, done = list(range(100)), []

    def work() -> None:
        while waiting:
            done.append(waiting.pop(0))

    worker.start(work)
    worker.wake()
    await worker.stop()
    assert done == list(range(100))


async def test_every_wake_is_followed_by_work(worker: Worker) -> None:
    seen: list[int] = []
    count = 0
    worker.start(lambda: seen.append(count))
    for _ in range(50):
        count += 1
        worker.wake()
        if count % 7 == 0:
            await asyncio.sleep(0.001)
    await worker.stop()
    assert seen[-1] == 50


async def test_it_never_works_twice_at_once(worker: Worker) -> None:
    at_it = 0

    def work() -> None:
        nonlocal at_it
        at_it += 1
        assert at_it == 1
        time.sleep(0.0005)
        at_it -= 1

    worker.start(work)
    for _ in range(20):
        worker.wake()
        await asyncio.sleep(0)
    await worker.stop()


async def test_what_it_is_at_is_finished_before_it_stops() -> None:
    worker = ThreadWorker("test-worker")
    began, may_end, finished = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait(10)
        finished.set()

    worker.start(work)
    worker.wake()
    await asyncio.to_thread(began.wait, 10)
    stopping = asyncio.ensure_future(worker.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    may_end.set()
    await stopping
    assert finished.is_set()
    assert "test-worker" not in [thread.name for thread in threading.enumerate()]


async def test_a_thread_that_was_never_started_can_be_stopped() -> None:
    await ThreadWorker("test-worker").stop()


async def test_a_thread_that_has_nothing_to_do_sleeps() -> None:
    worker = ThreadWorker("test-worker")
    times = []
    worker.start(lambda: times.append(1))
    worker.wake()
    await asyncio.sleep(0.05)
    assert len(times) == 1
    await worker.stop()


async def test_inline_the_work_is_done_after_this_turn_of_the_loop_and_once_for_all_who_asked() -> None:
    worker = InlineWorker()
    times: list[threading.Thread] = []
    worker.start(lambda: times.append(threading.current_thread()))
    worker.wake()
    worker.wake()
    assert times == []
    await asyncio.sleep(0)
    assert times == [threading.current_thread()]
    worker.wake()
    await asyncio.sleep(0)
    assert len(times) == 2


async def test_what_one_turn_asks_for_is_done_in_one_go_however_long_it_takes(worker: Worker) -> None:
    asked: list[int] = []
    done: list[int] = []

    def work() -> None:
        done.append(len(asked))
        asked.clear()

    async def ask(number: int) -> None:
        asked.append(number)
        worker.wake()
        until = time.perf_counter() + 0.01  # longer than Python lets another thread wait
        while time.perf_counter() < until:
            pass

    worker.start(work)
    await asyncio.gather(*(ask(number) for number in range(10)))
    await worker.stop()
    assert done[0] == 10
