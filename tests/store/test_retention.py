"""The log forgets by number and by age, whichever keeps less; where a room stands it never forgets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from holdfast.core.ready import Span
from holdfast.errors import NotFound
from holdfast.store import retention, writer
from holdfast.store.retention import forget
from holdfast.store.store import Once, Retention, Transaction
from store.conftest import Kept, OpenStore, take_note

HOUR = 3600.0


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def kept(open_store: OpenStore, clock: Clock) -> Kept:
    """A store on a clock that is set by hand."""
    return await open_store(wall=clock)


async def write(kept: Kept, *rooms: str) -> None:
    for room in rooms:
        await kept.store.write(lambda tx, room=room: tx.publish(room, "noted", {}))


async def trim(kept: Kept, clock: Clock, allowed: Retention) -> None:
    await forget(kept.store.read, kept.store.commit, allowed, clock())


async def offsets(kept: Kept, room: str) -> list[int]:
    return [record.offset for record in await kept.store.page(room, 0)]


async def test_only_so_many_are_kept_of_each_room(kept: Kept, clock: Clock) -> None:
    await write(kept, *["lobby"] * 10, *["kitchen"] * 3)
    await trim(kept, clock, Retention(4, HOUR, HOUR))
    assert await offsets(kept, "lobby") == [7, 8, 9, 10]
    assert await offsets(kept, "kitchen") == [1, 2, 3]
    await write(kept, "lobby")
    await trim(kept, clock, Retention(4, HOUR, HOUR))
    assert await offsets(kept, "lobby") == [8, 9, 10, 11]


async def test_only_so_old_ones_are_kept(kept: Kept, clock: Clock) -> None:
    for _ in range(5):
        await write(kept, "lobby", "kitchen")
        clock.now += 100
    clock.now -= 100
    await trim(kept, clock, Retention(1000, 250.0, HOUR))
    assert await offsets(kept, "lobby") == await offsets(kept, "kitchen") == [3, 4, 5]
    clock.now += 1000
    await trim(kept, clock, Retention(1000, 250.0, HOUR))
    assert await offsets(kept, "lobby") == []


async def test_what_is_just_as_old_as_it_may_be_is_kept(kept: Kept, clock: Clock) -> None:
    await write(kept, "lobby")
    clock.now += 99.999
    await trim(kept, clock, Retention(1000, 100.0, HOUR))
    assert await offsets(kept, "lobby") == [1]
    clock.now += 0.002
    await trim(kept, clock, Retention(1000, 100.0, HOUR))
    assert await offsets(kept, "lobby") == []


async def test_whichever_keeps_less_counts(kept: Kept, clock: Clock) -> None:
    await write(kept, *["lobby"] * 5)
    clock.now += 100
    await write(kept, *["lobby"] * 5)
    await trim(kept, clock, Retention(3, 50.0, HOUR))
    assert await offsets(kept, "lobby") == [8, 9, 10]
    await trim(kept, clock, Retention(1, 50.0, HOUR))
    assert await offsets(kept, "lobby") == [10]


async def test_a_room_whose_log_is_all_gone_stands_where_it_stood(
    kept: Kept, clock: Clock, open_store: OpenStore
) -> None:
    await write(kept, *["lobby"] * 5)
    clock.now += 10 * HOUR
    await trim(kept, clock, Retention(1000, HOUR, HOUR))
    assert await kept.store.span("lobby") == Span(6, 5)
    epoch = kept.store.epoch
    await kept.store.close()
    again = await open_store(wall=clock)
    assert (again.store.epoch, await again.store.span("lobby")) == (epoch, Span(6, 5))
    await write(again, "lobby")
    assert await offsets(again, "lobby") == [6]


async def test_what_is_kept_has_no_hole(kept: Kept, clock: Clock) -> None:
    for _ in range(20):
        await write(kept, "lobby")
        clock.now += 10
        await trim(kept, clock, Retention(7, 45.0, HOUR))
        left = await offsets(kept, "lobby")
        assert left == list(range(left[0], left[-1] + 1))
        assert await kept.store.span("lobby") == Span(left[0], left[-1])
    assert len(left) == 4


async def test_a_verdict_is_kept_for_its_time(kept: Kept, clock: Clock) -> None:
    def refused(tx: Transaction) -> None:
        raise NotFound("no")

    async def run() -> Any:
        return (await kept.commit(take_note, "hello", once=Once("ann", "key", "print"))).result

    assert await run() == "hello"
    with pytest.raises(NotFound):
        await kept.commit(refused, once=Once("ann", "other", "print"))
    clock.now += HOUR - 1
    await trim(kept, clock, Retention(1000, 1.0, HOUR))
    assert await run() == "hello"
    assert kept.rows("SELECT count(*) FROM holdfast_verdict") == [(2,)]
    clock.now += 2
    await trim(kept, clock, Retention(1000, 1.0, HOUR))
    assert kept.rows("SELECT count(*) FROM holdfast_verdict") == [(0,)]


# ── without being asked ───────────────────────────────────────────────────────────────────────────


async def until(kept: Kept, room: str, expected: list[int]) -> None:
    for _ in range(500):
        if await offsets(kept, room) == expected:
            return
        await asyncio.sleep(0.01)
    assert await offsets(kept, room) == expected


async def test_a_store_forgets_by_itself(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert retention.FORGET_EVERY == 60.0
    monkeypatch.setattr(retention, "FORGET_EVERY", 0.01)
    kept = await open_store(retention=Retention(2, HOUR, HOUR))
    await write(kept, *["lobby"] * 5)
    await until(kept, "lobby", [4, 5])


async def test_without_a_retention_nothing_is_forgotten(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FORGET_EVERY", 0.0)
    kept = await open_store()
    await write(kept, *["lobby"] * 5)
    await asyncio.sleep(0.02)
    assert await offsets(kept, "lobby") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("trouble", ["too many waiting", "a table is missing"])
async def test_a_time_when_it_could_not_forget_is_not_the_last(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    monkeypatch.setattr(retention, "FORGET_EVERY", 0.01)
    kept = await open_store(retention=Retention(2, HOUR, HOUR))
    await write(kept, *["lobby"] * 2)
    with monkeypatch.context() as meanwhile:
        if trouble == "too many waiting":
            meanwhile.setattr(writer, "WAITING_CHANGES", 0)
        else:
            await kept.store.write(lambda tx: tx.execute("ALTER TABLE holdfast_verdict RENAME TO away"))
        async with asyncio.timeout(5):
            while "could not be trimmed" not in caplog.text:
                await asyncio.sleep(0.01)  # until it has tried to, and could not
    if trouble == "a table is missing":
        await kept.store.write(lambda tx: tx.execute("ALTER TABLE away RENAME TO holdfast_verdict"))
    assert {record.levelno for record in caplog.records} <= {logging.ERROR, logging.WARNING}
    await write(kept, *["lobby"] * 3)
    await until(kept, "lobby", [4, 5])


async def test_it_forgets_a_little_at_a_time(kept: Kept, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that trimmed every room at once would hold up every writer."""
    monkeypatch.setattr(retention, "ROOMS", 3)
    monkeypatch.setattr(retention, "ROWS", 4)
    monkeypatch.setattr(retention, "TRIMMED", 1)
    rooms = [f"room-{number}" for number in range(10)]
    for room in rooms:
        await write(kept, *[room] * 7)
    for number in range(10):
        await kept.commit(take_note, f"note {number}", once=Once("ann", str(number), "print"))
    changes = 0
    commit = kept.store.commit

    async def count(*args: Any) -> Any:
        nonlocal changes
        changes += 1
        before = kept.rows("SELECT count(*) FROM holdfast_log")[0][0]
        outcome = await commit(*args)
        assert before - kept.rows("SELECT count(*) FROM holdfast_log")[0][0] <= 4
        return outcome

    monkeypatch.setattr(kept.store, "commit", count)
    await trim(kept, clock, Retention(2, HOUR, -HOUR))
    assert changes > 10
    for room in rooms:
        assert await offsets(kept, room) == [6, 7]
    assert kept.rows("SELECT count(*) FROM holdfast_verdict") == [(0,)]


async def test_rooms_whose_log_is_gone_cost_nothing(kept: Kept) -> None:
    def fill(tx: Transaction) -> None:
        tx.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO holdfast_room (name, head) SELECT 'room-' || i, 1 FROM n"
        )

    await kept.store.write(fill)
    await write(kept, "lobby")
    assert await kept.store.read(retention.find_excess, 1, 0, 0) == ([], None)  # one query was enough


async def test_ages_are_told_by_the_clock_and_not_by_the_newest_time_in_the_log(kept: Kept, clock: Clock) -> None:
    """One publication under a clock that was a month ahead would else empty all logs."""
    await write(kept, "lobby")
    clock.now += 720 * HOUR
    await write(kept, "kitchen")
    clock.now -= 720 * HOUR
    await write(kept, "lobby")
    await trim(kept, clock, Retention(1000, HOUR, HOUR))
    assert await offsets(kept, "lobby") == [1, 2]
