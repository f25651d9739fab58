"""What a store promises, whoever runs its work: a change and its publication are one, and reading is of one moment."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import threading
from typing import Any

import pytest

from holdfast.core.ready import CHUNK_BYTES, Span
from holdfast.errors import Closed, Invalid, Malformed, TooLarge, Unavailable
from holdfast.protocol.cursor import Position
from holdfast.store import sqlite
from holdfast.store.store import Once, Outcome, ReadTransaction, Record, Retention, Transaction
from holdfast.store.worker import InlineWorker
from store.conftest import Kept, OpenStore, take_note


@pytest.fixture(params=["thread", "inline"])
async def kept(request: pytest.FixtureRequest, open_store: OpenStore) -> Kept:
    """A store, worked by a thread of its own, or by the event loop."""
    return await open_store(worker=None if request.param == "thread" else InlineWorker())


# ── writing ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_change_and_its_publication_are_in_the_file_when_write_returns(kept: Kept) -> None:
    assert await kept.store.write(take_note, "hello") == "hello"
    assert kept.notes() == ["hello"]
    assert kept.log() == [("lobby", 1, "noted", '{"text":"hello"}')]
    assert kept.news == [Record("lobby", 1, "noted", b'{"text":"hello"}')]


async def test_arguments_reach_the_change_by_name_too(kept: Kept) -> None:
    await kept.store.write(take_note, text="hello", room="kitchen")
    assert kept.log("kitchen") == [("kitchen", 1, "noted", '{"text":"hello"}')]


async def test_commit_says_what_was_published_by_this_change_alone(kept: Kept) -> None:
    def twice(tx: Transaction) -> int:
        tx.publish("lobby", "one", {})
        tx.publish("kitchen", "two", {"n": 2})
        tx.publish("lobby", "three", {})
        return 3

    await kept.store.write(take_note, "before")
    assert await kept.commit(twice) == Outcome(
        3,
        (
            Record("lobby", 2, "one", b"{}"),
            Record("kitchen", 1, "two", b'{"n":2}'),
            Record("lobby", 3, "three", b"{}"),
        ),
        (("lobby", 2), ("kitchen", 1), ("lobby", 3)),
    )


async def test_a_change_that_publishes_nothing_is_no_news(kept: Kept) -> None:
    await kept.store.write(lambda tx: tx.execute("INSERT INTO note (text) VALUES ('quiet')"))
    assert kept.notes() == ["quiet"]
    assert kept.told == []


async def test_what_was_written_before_is_seen_by_the_change_itself(kept: Kept) -> None:
    def change(tx: Transaction) -> Any:
        assert tx.execute("INSERT INTO note (text) VALUES (?), (?)", ("a", "b")) == 2
        assert tx.execute("UPDATE note SET text = text || '!'") == 2
        assert tx.one("SELECT text FROM note WHERE text = ?", ("nobody",)) is None
        return tx.all("SELECT id, text FROM note ORDER BY id")

    assert await kept.store.write(change) == [{"id": 1, "text": "a!"}, {"id": 2, "text": "b!"}]


async def test_ids_are_never_given_twice(kept: Kept) -> None:
    def change(tx: Transaction, *, fails: bool) -> list[str]:
        ids = [tx.new_id("task"), tx.new_id("task"), tx.new_id("list")]
        if fails:
            raise Invalid("no")
        return ids

    assert await kept.store.write(change, fails=False) == ["task-1", "task-2", "list-1"]
    with pytest.raises(Invalid):
        await kept.store.write(change, fails=True)
    assert await kept.store.write(change, fails=False) == ["task-3", "task-4", "list-2"]


@pytest.mark.parametrize(
    ("room", "type", "data", "error"),
    [
        ("", "noted", {}, Malformed),
        ("r" * 129, "noted", {}, Malformed),
        ("lobby", "joined", {}, Invalid),
        ("lobby", "noted", {"id": 5}, Invalid),
        ("lobby", "noted", [], Invalid),
        ("lobby", "noted", {"text": "x" * 64 * 1024}, TooLarge),
    ],
)
async def test_what_cannot_be_published_undoes_its_change(
    kept: Kept, room: str, type: str, data: Any, error: type[Exception]
) -> None:
    def change(tx: Transaction) -> None:
        take_note(tx, "before")
        tx.publish(room, type, data)

    with pytest.raises(error):
        await kept.store.write(change)
    assert (kept.notes(), kept.log(), kept.news) == ([], [], [])


async def test_a_publication_of_just_64_kib_is_taken(kept: Kept) -> None:
    data = {"text": "x" * (64 * 1024 - len('{"text":""}'))}
    await kept.store.write(lambda tx: tx.publish("lobby", "noted", data))
    assert len(kept.news[0].body) == 64 * 1024


async def test_sixty_four_writers_at_once_leave_dense_logs_in_the_order_of_the_news(kept: Kept) -> None:
    def change(tx: Transaction, writer: int, number: int) -> None:
        take_note(tx, f"{writer}-{number}", room=f"room-{(writer + number) % 3}")
        if number % 4 == 0:
            tx.publish("everything", "noted", {"text": f"{writer}-{number}"})

    async def writer(number: int) -> None:
        for count in range(20):
            await kept.store.write(change, number, count)

    await asyncio.gather(*(writer(number) for number in range(64)))
    log = kept.log()
    for room in ("room-0", "room-1", "room-2", "everything"):
        offsets = [offset for name, offset, _, _ in log if name == room]
        assert offsets == list(range(1, len(offsets) + 1))
        mine = [(record.room, record.offset, record.type, record.body.decode()) for record in kept.news]
        assert [entry for entry in mine if entry[0] == room] == kept.log(room)
    # Rows are numbered in the order in which the changes ran: the log of each room has the same order.
    order = {text: place for place, text in enumerate(kept.notes())}
    for room in ("room-0", "room-1", "room-2"):
        places = [order[body[9:-2]] for _, _, _, body in kept.log(room)]
        assert places == sorted(places)
    assert len(kept.notes()) == 64 * 20


async def test_each_writer_is_answered_after_its_own_order(kept: Kept) -> None:
    answered: list[int] = []

    async def write(number: int) -> None:
        await kept.store.write(take_note, str(number))
        answered.append(number)

    await asyncio.gather(*(write(number) for number in range(100)))
    assert answered == list(range(100))
    assert [record.offset for record in kept.news] == list(range(1, 101))


async def test_who_gave_up_waiting_does_not_stop_the_change(kept: Kept) -> None:
    task = asyncio.ensure_future(kept.store.write(take_note, "hello"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await kept.store.write(take_note, "after")
    assert kept.notes() == ["hello", "after"]
    assert [record.offset for record in kept.news] == [1, 2]


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_query_returns_what_is_committed(kept: Kept) -> None:
    def query(tx: ReadTransaction, text: str) -> Any:
        return tx.one("SELECT id FROM note WHERE text = ?", (text,)), tx.position("lobby"), tx.position("nowhere")

    await kept.store.write(take_note, "hello")
    epoch = kept.store.epoch
    assert await kept.store.read(query, "hello") == ({"id": 1}, Position(epoch, 1), Position(epoch, 0))
    assert await kept.store.read(query, text="nobody") == (None, Position(epoch, 1), Position(epoch, 0))


async def test_a_query_cannot_write(kept: Kept) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await kept.store.read(lambda tx: tx.all("INSERT INTO note (text) VALUES ('x')"))
    assert kept.notes() == []
    await kept.store.read(lambda tx: tx.all("SELECT 1"))  # and the next is not harmed


async def test_the_span_says_what_the_log_has(kept: Kept) -> None:
    assert await kept.store.span("lobby") == Span(1, 0)
    for text in "abc":
        await kept.store.write(take_note, text)
    assert await kept.store.span("lobby") == Span(1, 3)
    assert await kept.store.span("kitchen") == Span(1, 0)
    await kept.store.write(lambda tx: tx.execute("DELETE FROM holdfast_log WHERE offset < 3"))
    assert await kept.store.span("lobby") == Span(3, 3)
    await kept.store.write(lambda tx: tx.execute("DELETE FROM holdfast_log"))
    assert await kept.store.span("lobby") == Span(4, 3)


async def test_pages_follow_each_other_without_holes(kept: Kept) -> None:
    def change(tx: Transaction) -> None:
        for number in range(600):
            tx.publish("lobby", "noted", {"n": number})
            tx.publish("kitchen", "noted", {"n": -number})

    await kept.store.write(change)
    after, pages = 0, []
    while page := await kept.store.page("lobby", after):
        assert [record.offset for record in page] == list(range(after + 1, after + 1 + len(page)))
        assert {record.room for record in page} == {"lobby"}
        after = page[-1].offset
        pages.append(len(page))
    assert pages == [256, 256, 88]
    assert await kept.store.page("nowhere", 0) == []


async def test_a_page_is_about_a_chunk_and_has_at_least_one(kept: Kept) -> None:
    for size in (40_000, 30_000, 60_000, 5_000, 60_000):
        await kept.store.write(lambda tx, size=size: tx.publish("lobby", "noted", {"text": "x" * size}))
    pages = [[record.offset for record in await kept.store.page("lobby", after)] for after in range(5)]
    assert pages == [[1], [2], [3, 4], [4, 5], [5]]
    for after in range(5):
        page = await kept.store.page("lobby", after)
        assert len(page) == 1 or sum(len(record.body) for record in page) <= CHUNK_BYTES


async def test_a_page_of_a_trimmed_log_begins_with_the_first_that_is_left(kept: Kept) -> None:
    for text in "abcde":
        await kept.store.write(take_note, text)
    await kept.store.write(lambda tx: tx.execute("DELETE FROM holdfast_log WHERE offset <= 3"))
    assert [record.offset for record in await kept.store.page("lobby", 1)] == [4, 5]
    assert await kept.store.page("lobby", 5) == []


async def test_all_that_a_query_reads_is_of_one_moment(open_store: OpenStore) -> None:
    kept = await open_store()
    await kept.store.write(take_note, "before")
    first_done, written = threading.Event(), threading.Event()

    def query(tx: ReadTransaction) -> list[Any]:
        def look() -> Any:
            return tx.all("SELECT text FROM note"), tx.position("lobby"), tx.now

        first = look()
        first_done.set()
        assert written.wait(10)
        return [first, look()]

    reading = asyncio.ensure_future(kept.store.read(query))
    await asyncio.to_thread(first_done.wait, 10)
    await kept.store.write(take_note, "meanwhile")
    written.set()
    first, second = await reading
    assert first == second
    assert [row["text"] for row in first[0]] == ["before"]
    rows, position, now = await kept.store.read(
        lambda tx: (tx.all("SELECT text FROM note"), tx.position("lobby"), tx.now)
    )
    assert ([row["text"] for row in rows], position.offset) == (["before", "meanwhile"], 2)
    assert now > first[2]


async def test_a_snapshot_and_its_position_belong_together(open_store: OpenStore) -> None:
    kept = await open_store()

    def snapshot(tx: ReadTransaction) -> tuple[int, int]:
        count = tx.one("SELECT count(*) AS n FROM note")
        assert count is not None
        return count["n"], tx.position("lobby").offset

    async def write() -> None:
        for number in range(100):
            await kept.store.write(take_note, str(number))

    writing = asyncio.ensure_future(write())
    seen = set()
    while not writing.done():
        count, offset = await kept.store.read(snapshot)
        assert count == offset
        seen.add(count)
    assert len(seen) > 3


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


async def test_now_is_later_than_that_of_every_change_before_even_if_the_clock_jumps_back(
    open_store: OpenStore,
) -> None:
    clock = iter([1000.0, 1000.0, 1000.0000005, 500.0, 0.0, 1000.000001, 2000.0, *[1.0] * 100])
    kept = await open_store(wall=lambda: next(clock))
    times = [await kept.store.write(lambda tx: tx.now) for _ in range(8)]
    assert times == sorted(set(times))
    assert times[0] == "1970-01-01T00:16:40.000000Z"
    assert times[-2] == "1970-01-01T00:33:20.000000Z"
    assert await kept.store.read(lambda tx: tx.now) == times[-1]
    await kept.store.close()
    again = await open_store(wall=lambda: 3.0)  # the clock is wrong, and it is another process's life
    assert await again.store.read(lambda tx: tx.now) == times[-1]
    assert await again.store.write(lambda tx: tx.now) > times[-1]


async def test_changes_of_one_batch_have_times_of_their_own(open_store: OpenStore) -> None:
    kept = await open_store(wall=lambda: 1000.0)
    times = [outcome.result for outcome in await kept.in_one_batch(*[(lambda tx: (tx.now, tx.now),)] * 20)]
    assert all(first == second for first, second in times)
    assert [first for first, _ in times] == sorted({first for first, _ in times})


async def test_a_store_in_which_nothing_was_written_has_a_time_too(kept: Kept) -> None:
    assert await kept.store.read(lambda tx: tx.now) == "1970-01-01T00:00:00.000000Z"


# ── its end ───────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_accepted_is_finished_before_it_closes(kept: Kept) -> None:
    writes = [asyncio.ensure_future(kept.store.write(take_note, str(number))) for number in range(50)]
    await asyncio.sleep(0)
    await kept.store.close()
    assert await asyncio.gather(*writes) == [str(number) for number in range(50)]
    assert len(kept.news) == 50


async def test_a_closed_store_says_so(kept: Kept) -> None:
    await kept.store.close()
    await kept.store.close()
    with pytest.raises(Closed):
        await kept.store.write(take_note, "late")
    with pytest.raises(Closed):
        await kept.store.read(lambda tx: tx.now)
    with pytest.raises(Closed):
        await kept.store.page("lobby", 0)


async def test_when_too_much_waits_for_the_disk_it_says_so(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sqlite.WAITING_CHANGES == 10_000
    monkeypatch.setattr(sqlite, "WAITING_CHANGES", 3)
    kept = await open_store()
    outcomes = await kept.in_one_batch(*[(take_note, str(number)) for number in range(5)])
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False, False, False, True, True]
    assert kept.notes() == ["0", "1", "2"]
    await kept.store.write(take_note, "later")


@pytest.mark.parametrize(
    "value",
    [
        Record("lobby", 1, "noted", b"{}"),
        Once("ann", "key", "print"),
        Retention(10, 60.0, 60.0),
        Outcome(None, (), ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_cannot_be_changed(value: Any) -> None:
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
