"""A change that fails is undone alone, whatever it did; the others of its batch succeed, and no news is untrue."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ChangeFailed, Conflict, OutcomeUnknown, StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store import transaction
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Transaction
from holdfast.store.worker import InlineWorker
from holdfast.testing.disk import Disk
from holdfast.testing.virtual import Inline
from store.conftest import NOTES, Deaf, Kept, OpenStore, take_note


@pytest.fixture
def kind() -> str:
    return "sqlite"


def raises(tx: Transaction) -> None:
    raise ZeroDivisionError("by zero")


def refuses(tx: Transaction) -> None:
    raise Conflict("it is not as you think")


def runs_out(tx: Transaction) -> None:
    next(iter(()))


def exits(tx: Transaction) -> None:
    raise SystemExit(3)


def repeats_a_row(tx: Transaction) -> None:
    tx.execute("INSERT INTO note (text) VALUES ('good-0')")


def rolls_back_on_conflict(tx: Transaction) -> None:
    tx.execute("INSERT OR ROLLBACK INTO note (text) VALUES ('good-0')")


def rolls_back_and_goes_on(tx: Transaction) -> None:
    try:
        tx.execute("INSERT OR ROLLBACK INTO note (text) VALUES ('good-0')")
    except sqlite3.IntegrityError:
        tx.execute("INSERT INTO note (text) VALUES ('outside of any transaction')")
        tx.publish("lobby", "noted", {"text": "outside"})


def rolls_back_and_says_nothing(tx: Transaction) -> None:
    with contextlib.suppress(sqlite3.IntegrityError):
        tx.execute("INSERT OR ROLLBACK INTO note (text) VALUES ('good-0')")


def fills_the_disk(tx: Transaction) -> None:
    tx.execute("INSERT INTO note (text) VALUES (hex(zeroblob(500000)))")


def takes_long(tx: Transaction) -> None:
    tx.one("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")


def writes_for_long(tx: Transaction) -> None:
    tx.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO note (text) SELECT max(i) FROM n"
    )


def fills_the_disk_row_by_row(tx: Transaction) -> None:
    for number in range(1000):
        tx.execute("INSERT INTO note (text) VALUES (?)", (f"{number}" * 2000,))


def thinks_for_long(tx: Transaction) -> None:
    time.sleep(0.6)
    tx.execute("INSERT INTO note (text) VALUES ('late')")


def says(sql: str) -> Callable[[Transaction], None]:
    def change(tx: Transaction) -> None:
        tx.execute(sql)

    change.__name__ = sql
    return change


CONTROL = [
    says(sql)
    for sql in (
        "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT mine", "RELEASE holdfast_change",
        "ROLLBACK TO holdfast_change", "ATTACH ':memory:' AS other", "DETACH main", "PRAGMA synchronous = OFF",
        "PRAGMA user_version", "commit", "/* hm */ COMMIT;",
    )
]  # fmt: skip


BAD: list[tuple[Callable[..., Any], type[BaseException], str]] = [
    (raises, ZeroDivisionError, "by zero"),
    (refuses, Conflict, "as you think"),
    (runs_out, ChangeFailed, "StopIteration"),
    (exits, ChangeFailed, "SystemExit"),
    (repeats_a_row, sqlite3.IntegrityError, "UNIQUE"),
    (rolls_back_on_conflict, StoreError, "UNIQUE"),
    (rolls_back_and_goes_on, ChangeFailed, "rolled back"),
    (rolls_back_and_says_nothing, ChangeFailed, "rolled back"),
    (fills_the_disk, Unavailable, "the disk is full"),
    (fills_the_disk_row_by_row, Unavailable, "the disk is full"),
    (takes_long, ChangeFailed, "more than 0.5 s"),
    (writes_for_long, ChangeFailed, "more than 0.5 s"),
    (thinks_for_long, ChangeFailed, "too long"),
    *((change, ChangeFailed, "may not") for change in CONTROL),
]


@pytest.fixture
async def tight(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A store that interrupts a change after 0.5 s, on a disk with little room."""
    monkeypatch.setattr(transaction, "CHANGE_SECONDS", 0.5)
    kept = await open_store()
    (pages,) = kept.store._connection.execute("PRAGMA page_count").fetchone()
    kept.store._connection.execute(f"PRAGMA max_page_count = {pages + 50}")
    return kept


def bad(tx: Transaction, then: Callable[[Transaction], Any]) -> Any:
    """A change that has written and published when it goes wrong."""
    take_note(tx, "bad")
    return then(tx)


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("place", [0, 3, 6])
async def test_in_a_batch_the_good_succeed_and_the_bad_one_is_told(
    tight: Kept, change: Callable[..., Any], error: type[BaseException], words: str, place: int
) -> None:
    await tight.store.write(take_note, "good-0")
    changes: list[tuple[Any, ...]] = [(take_note, f"good-{number}") for number in range(1, 7)]
    changes.insert(place, (bad, change))
    outcomes = await tight.in_one_batch(*changes)
    told = outcomes.pop(place)
    assert isinstance(told, error), repr(told)
    assert words in str(told)
    expected = [f"good-{number}" for number in range(7)]
    assert [outcome.result for outcome in outcomes] == expected[1:]
    assert tight.notes() == expected
    assert tight.log() == [
        ("lobby", number + 1, "noted", f'{{"text":"{text}"}}') for number, text in enumerate(expected)
    ]
    assert [(record.offset, record.body.decode()) for record in tight.said] == [
        (offset, body) for _, offset, _, body in tight.log()
    ]
    await tight.store.write(take_note, "after")  # and the store lives on
    assert tight.said[-1].offset == 8


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=lambda value: getattr(value, "__name__", ""))
async def test_alone_a_bad_change_is_told_the_same(
    tight: Kept, change: Callable[..., Any], error: type[BaseException], words: str
) -> None:
    await tight.store.write(take_note, "good-0")
    with pytest.raises(error, match=words):
        await tight.store.write(bad, change)
    assert tight.notes() == ["good-0"]
    assert len(tight.log()) == len(tight.said) == 1


async def test_many_bad_ones_in_one_batch_are_each_told_their_own(tight: Kept) -> None:
    await tight.store.write(take_note, "good-0")
    changes: list[tuple[Any, ...]] = []
    for number, (change, _, _) in enumerate(BAD):
        changes += [(bad, change), (take_note, f"good-{number + 1}")]
    outcomes = await tight.in_one_batch(*changes)
    for outcome, (_, error, words) in zip(outcomes[::2], BAD, strict=True):
        assert isinstance(outcome, error)
        assert words in str(outcome)
    assert tight.notes() == [f"good-{number}" for number in range(len(BAD) + 1)]
    assert [record.offset for record in tight.said] == list(range(1, len(BAD) + 2))


async def test_a_store_whose_file_is_out_of_reach_says_so_to_everybody(kept: Kept) -> None:
    kept.store._connection.close()
    outcomes = await asyncio.gather(*(kept.commit(take_note, text) for text in "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreError] * 3


async def test_a_change_may_catch_what_a_statement_raises_and_go_on(kept: Kept) -> None:
    def change(tx: Transaction) -> str:
        take_note(tx, "first")
        with pytest.raises(sqlite3.IntegrityError):
            tx.execute("INSERT INTO note (text) VALUES ('first')")
        return take_note(tx, "second")

    assert await kept.store.write(change) == "second"
    assert kept.notes() == ["first", "second"]


async def test_the_time_that_others_took_is_not_counted(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    assert transaction.CHANGE_SECONDS == 5.0
    monkeypatch.setattr(transaction, "CHANGE_SECONDS", 1.0)

    def change(tx: Transaction, text: str) -> str:
        time.sleep(0.3)
        return take_note(tx, text)

    outcomes = await kept.in_one_batch(*[(change, str(number)) for number in range(4)])
    assert [outcome.result for outcome in outcomes] == ["0", "1", "2", "3"]


async def test_a_disk_that_is_full_at_the_commit_acknowledges_nothing(tight: Kept) -> None:
    await tight.store.write(take_note, "good-0")
    tight.store._connection.execute("PRAGMA max_page_count = 1")  # not even less than there is
    big = "x" * 30_000
    outcomes = []
    for number in range(20):
        outcomes += await tight.in_one_batch(
            *[(lambda tx, n: tx.publish("lobby", "noted", {"text": big + n}), f"{number}-{n}") for n in range(3)]
        )
    told = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert told
    assert len(tight.said) == len(tight.log()) == 1 + len(outcomes) - len(told)
    assert [record.offset for record in tight.said] == list(range(1, len(tight.said) + 1))


async def test_a_disk_that_fails_is_said_to_whoever_runs_the_server_and_when_it_works_again(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    with Disk(random.Random(1)) as disk:
        kept = await open_store()
        await kept.store.write(take_note, "good-0")
        for fault in ("is_full", "fails_to_sync"):
            setattr(disk, fault, True)
            for _ in range(3):
                with pytest.raises((Unavailable, OutcomeUnknown)):
                    await kept.store.write(take_note, "meanwhile")
                with pytest.raises(StoreError, match="UNIQUE"):  # it ends before a commit, and shows nothing
                    await kept.store.write(rolls_back_on_conflict)
            setattr(disk, fault, False)
            await kept.store.write(take_note, fault)
        with pytest.raises(ZeroDivisionError):  # that is nothing to tell
            await kept.store.write(raises)
        await kept.store.close()
    assert caplog.messages == [
        "changes cannot be committed (database or disk is full)",
        "changes can be committed again",
        "changes cannot be committed (disk I/O error)",
        "changes can be committed again",
    ]


async def test_what_could_not_be_synced_is_unknown_and_what_follows_is_kept(open_store: OpenStore) -> None:
    """It may be found on the disk after a crash: so nobody is told that it did not happen."""
    with Disk(random.Random(1)) as disk:
        kept = await open_store()
        await kept.store.write(take_note, "before")
        disk.fails_to_sync = True
        with pytest.raises(OutcomeUnknown):
            await kept.store.write(take_note, "meanwhile")
        disk.fails_to_sync = False
        await kept.store.write(take_note, "after")
        assert kept.notes() == ["before", "after"]
        assert [record.offset for record in kept.said] == [1, 2]
        await kept.store.close()


@pytest.mark.parametrize("is_full", [False, True], ids=["at once", "when there is room again"])
async def test_what_follows_is_kept_also_by_a_server_that_has_found_what_could_not_be_synced(
    tmp_path: Path, is_full: bool
) -> None:
    """It is in the system's memory, and looks as if it were on the disk; no sync will ever write it there."""

    async def start() -> Kept:
        store = SqliteStore(tmp_path / "notes.db", Codec(), migrations=[NOTES], worker=InlineWorker(), reads=Inline())
        await store.open(Deaf())
        return Kept(store)

    def kill(kept: Kept) -> None:
        kept.store._housekeeping.cancel()
        kept.store.abandon()
        disk.abandon()

    with Disk(random.Random(3)) as disk:
        first = await start()
        await first.store.write(take_note, "before")
        disk.fails_to_sync = True
        with pytest.raises(OutcomeUnknown):
            await first.store.write(take_note, "meanwhile")
        disk.fails_to_sync, disk.is_full = False, is_full
        kill(first)
        second = await start()
        if is_full:
            with pytest.raises(Unavailable):
                await second.store.write(take_note, "there is no room")
            disk.is_full = False
        for number in range(3):
            await second.store.write(take_note, f"after {number}")
        kill(second)
        disk.lose_power()
        third = await start()
        notes = [row["text"] for row in await third.store.read(lambda tx: tx.all("SELECT text FROM note ORDER BY id"))]
        assert notes[0] == "before"
        assert notes[-3:] == [f"after {number}" for number in range(3)]
        kill(third)
