"""What a store promises, whoever runs its work: a change and its publication are one, and reading is of one moment."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import threading
from typing import Any

import psycopg
import pytest

from holdfast.errors import Invalid, Malformed, TooLarge
from holdfast.protocol.cursor import Position
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
    assert kept.said == [Record("lobby", 1, "noted", b'{"text":"hello"}')]


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
    assert (kept.notes(), kept.log(), kept.said) == ([], [], [])


async def test_a_publication_of_just_64_kib_is_taken(kept: Kept) -> None:
    data = {"text": "x" * (64 * 1024 - len('{"text":""}'))}
    await kept.store.write(lambda tx: tx.publish("lobby", "noted", data))
    assert len(kept.said[0].body) == 64 * 1024


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
        mine = [(record.room, record.offset, record.type, record.body.decode()) for record in kept.said]
        assert [entry for entry in mine if entry[0] == room] == kept.log(room)
    # Rows are numbered in the order in which the changes ran: the log of each room has the same order.
    order = {text: place for place, text in enumerate(kept.notes())}
    for room in ("room-0", "room-1", "room-2"):
        places = [order[body[9:-2]] for _, _, _, body in kept.log(room)]
        assert places == sorted(places)
    assert len(kept.notes()) == 64 * 20


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_query_returns_what_is_committed(kept: Kept) -> None:
    def query(tx: ReadTransaction, text: str) -> Any:
        return tx.one("SELECT id FROM note WHERE text = ?", (text,)), tx.position("lobby"), tx.position("nowhere")

    await kept.store.write(take_note, "hello")
    epoch = kept.store.epoch
    assert await kept.store.read(query, "hello") == ({"id": 1}, Position(epoch, 1), Position(epoch, 0))
    assert await kept.store.read(query, text="nobody") == (None, Position(epoch, 1), Position(epoch, 0))


async def test_a_query_cannot_write(kept: Kept) -> None:
    with pytest.raises((sqlite3.OperationalError, psycopg.errors.ReadOnlySqlTransaction), match=r"read-?only"):
        await kept.store.read(lambda tx: tx.all("INSERT INTO note (text) VALUES ('x')"))
    assert kept.notes() == []
    await kept.store.read(lambda tx: tx.all("SELECT 1"))  # and the next is not harmed


async def test_all_that_a_query_reads_is_of_one_moment(open_store: OpenStore) -> None:
    kept = await open_store()
    await kept.store.write(take_note, "before")
    first_done, written = threading.Event(), threading.Event()

    def query(tx: ReadTransaction) -> list[Any]:
        def look() -> Any:
            return tx.all("SELECT text FROM note"), tx.position("lobby"), tx.time("lobby", tx.position("lobby").offset)

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
        lambda tx: (
            tx.all("SELECT text FROM note"),
            tx.position("lobby"),
            tx.time("lobby", tx.position("lobby").offset),
        )
    )
    assert ([row["text"] for row in rows], position.offset) == (["before", "meanwhile"], 2)
    assert now is not None
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
