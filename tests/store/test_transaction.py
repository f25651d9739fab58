"""A change that fails is undone alone, whatever it did; the others of its batch succeed, and no news is untrue."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.errors import ChangeFailed, Conflict, Invalid, NotFound, Refused, StoreError
from holdfast.store import transaction
from holdfast.store.store import Once, ReadTransaction, Transaction
from store.conftest import Kept, OpenStore, take_note

# ── changes that break a rule ─────────────────────────────────────────────────────────────────────


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
    (fills_the_disk, StoreError, "full"),
    (fills_the_disk_row_by_row, StoreError, "full"),
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
    assert [(record.offset, record.body.decode()) for record in tight.news] == [
        (offset, body) for _, offset, _, body in tight.log()
    ]
    await tight.store.write(take_note, "after")  # and the store lives on
    assert tight.news[-1].offset == 8


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=lambda value: getattr(value, "__name__", ""))
async def test_alone_a_bad_change_is_told_the_same(
    tight: Kept, change: Callable[..., Any], error: type[BaseException], words: str
) -> None:
    await tight.store.write(take_note, "good-0")
    with pytest.raises(error, match=words):
        await tight.store.write(bad, change)
    assert tight.notes() == ["good-0"]
    assert len(tight.log()) == len(tight.news) == 1


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
    assert [record.offset for record in tight.news] == list(range(1, len(BAD) + 2))


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


# ── one commit for many ───────────────────────────────────────────────────────────────────────────


async def test_changes_that_wait_together_share_one_commit(kept: Kept) -> None:
    statements: list[str] = []
    kept.store._connection.set_trace_callback(statements.append)
    await kept.in_one_batch(*[(take_note, str(number)) for number in range(100)])
    assert sum(statement.startswith("COMMIT") for statement in statements) == 2  # the one that held them up, and theirs
    assert kept.told == [100]


async def test_nothing_is_answered_or_dispatched_before_the_commit(kept: Kept) -> None:
    seen: list[int] = []

    def look(tx: Transaction) -> None:
        seen.append(len(kept.log()))
        seen.append(len(kept.news))

    await kept.in_one_batch((take_note, "a"), (take_note, "b"), (look,))
    assert seen == [0, 0]
    assert len(kept.news) == 2


async def test_a_disk_that_is_full_at_the_commit_acknowledges_nothing(tight: Kept) -> None:
    await tight.store.write(take_note, "good-0")
    tight.store._connection.execute("PRAGMA max_page_count = 1")  # not even less than there is
    big = "x" * 30_000
    outcomes = []
    for number in range(20):
        outcomes += await tight.in_one_batch(
            *[(lambda tx, n: tx.publish("lobby", "noted", {"text": big + n}), f"{number}-{n}") for n in range(3)]
        )
    told = [outcome for outcome in outcomes if isinstance(outcome, StoreError)]
    assert told
    assert len(tight.news) == len(tight.log()) == 1 + len(outcomes) - len(told)
    assert [record.offset for record in tight.news] == list(range(1, len(tight.news) + 1))


# ── a transaction and its life ────────────────────────────────────────────────────────────────────


async def test_a_transaction_that_is_kept_does_nothing_after_its_change(kept: Kept) -> None:
    stolen: list[Transaction] = []

    def steals(tx: Transaction) -> None:
        stolen.append(tx)

    await kept.store.write(steals)
    (tx,) = stolen
    for use in (
        lambda: tx.execute("INSERT INTO note (text) VALUES ('late')"),
        lambda: tx.all("SELECT 1"),
        lambda: tx.one("SELECT 1"),
        lambda: tx.new_id("task"),
        lambda: tx.publish("lobby", "noted", {}),
        lambda: tx.position("lobby"),
    ):
        with pytest.raises(ChangeFailed, match="over"):
            use()

    def uses_the_other(mine: Transaction) -> None:
        tx.publish("lobby", "noted", {})

    with pytest.raises(ChangeFailed, match="over"):
        await kept.store.write(uses_the_other)
    assert (kept.notes(), kept.log()) == ([], [])


async def test_a_change_stands_where_its_room_stood_before_it(kept: Kept) -> None:
    def change(tx: Transaction) -> list[int]:
        before = tx.position("lobby").offset
        tx.publish("lobby", "noted", {})
        return [before, tx.position("lobby").offset]

    assert await kept.store.write(change) == [0, 0]
    assert await kept.store.write(change) == [1, 1]


# ── once ──────────────────────────────────────────────────────────────────────────────────────────


class Note(msgspec.Struct):
    """Something that is not plain JSON when it comes back."""

    id: int
    text: str


def make_note(tx: Transaction, text: str) -> Note:
    take_note(tx, text)
    row = tx.one("SELECT id FROM note WHERE text = ?", (text,))
    assert row is not None
    return Note(row["id"], text)


def once(key: str = "key", fingerprint: str = "print", user: str = "ann") -> Once:
    return Once(user, key, fingerprint)


async def test_a_repetition_is_answered_as_the_first_was_and_does_nothing(kept: Kept) -> None:
    first = await kept.commit(make_note, "hello", once=once())
    again = await kept.commit(make_note, "hello", once=once())
    assert first.result == again.result == Note(1, "hello")
    assert (len(first.publications), again.publications) == (1, ())
    assert first.positions == again.positions == (("lobby", 1),)
    assert kept.notes() == ["hello"]
    assert len(kept.news) == 1


async def test_each_publication_has_the_time_of_its_own_change(kept: Kept) -> None:
    def change(tx: Transaction, number: int) -> str:
        tx.publish("lobby", "noted", {"n": number})
        return tx.now

    outcomes = await kept.in_one_batch(*[(change, number) for number in range(10)])
    times = [await kept.store.read(lambda tx, offset: tx.time("lobby", offset), offset) for offset in range(1, 11)]
    assert times == [outcome.result for outcome in outcomes] == sorted({outcome.result for outcome in outcomes})
    assert await kept.store.read(lambda tx: tx.time("lobby", 11)) is None
    assert await kept.store.read(lambda tx: tx.time("nowhere", 1)) is None


async def test_a_key_is_one_users(kept: Kept) -> None:
    await kept.commit(make_note, "ann's", once=once(user="ann"))
    assert (await kept.commit(make_note, "bob's", once=once(user="bob"))).result == Note(2, "bob's")


async def test_one_key_for_two_commands_is_a_mistake_and_changes_nothing(kept: Kept) -> None:
    await kept.commit(make_note, "hello", once=once())
    for _ in range(2):
        with pytest.raises(Invalid, match="another command") as refusal:
            await kept.commit(make_note, "other", once=once(fingerprint="other"))
        assert refusal.value.field == "key"
    assert (await kept.commit(make_note, "hello", once=once())).result == Note(1, "hello")
    assert kept.notes() == ["hello"]


async def test_a_refusal_is_remembered(kept: Kept) -> None:
    times = []

    def change(tx: Transaction) -> None:
        times.append(1)
        take_note(tx, "undone")
        raise NotFound("there is no such board", field="board")

    for _ in range(3):
        with pytest.raises(NotFound, match="no such board") as refusal:
            await kept.commit(change, once=once())
        assert refusal.value.field == "board"
    assert (len(times), kept.notes(), kept.log()) == (1, [], [])


async def test_an_unexpected_failure_is_not_remembered(kept: Kept) -> None:
    results: list[Any] = [ZeroDivisionError("a bug"), sqlite3.OperationalError("a moment"), 5]

    def change(tx: Transaction) -> int:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return int(result)

    for error in (ZeroDivisionError, sqlite3.OperationalError):
        with pytest.raises(error):
            await kept.commit(change, once=once())
    assert (await kept.commit(change, once=once())).result == 5
    assert (await kept.commit(change, once=once())).result == 5


async def test_a_verdict_survives_reopening(kept: Kept, open_store: OpenStore) -> None:
    def refused(tx: Transaction) -> None:
        raise Conflict("no")

    await kept.commit(make_note, "hello", once=once())
    with pytest.raises(Conflict):
        await kept.commit(refused, once=once("other"))
    await kept.store.close()
    again = await open_store()
    assert (await again.commit(make_note, "hello", once=once())).result == Note(1, "hello")
    with pytest.raises(Conflict, match="no"):
        await again.commit(make_note, "other", once=once("other"))
    assert again.notes() == ["hello"]


async def test_the_same_key_many_times_in_one_batch_runs_once(kept: Kept) -> None:
    outcomes = await kept.in_one_batch(*[(make_note, "hello", once()) for _ in range(20)])
    assert [outcome.result for outcome in outcomes] == [Note(1, "hello")] * 20
    assert [len(outcome.publications) for outcome in outcomes] == [1] + [0] * 19
    assert [outcome.positions for outcome in outcomes] == [(("lobby", 1),)] * 20
    assert kept.notes() == ["hello"]


async def test_keys_hold_when_the_batch_is_run_again(tight: Kept) -> None:
    await tight.store.write(take_note, "good-0")
    outcomes = await tight.in_one_batch(
        (make_note, "hello", once()), (bad, rolls_back_on_conflict), (make_note, "hello", once())
    )
    assert [outcome.result for outcome in outcomes[::2]] == [Note(2, "hello")] * 2
    assert isinstance(outcomes[1], StoreError)
    assert tight.notes() == ["good-0", "hello"]


async def test_a_result_that_cannot_be_remembered_is_no_success(kept: Kept) -> None:
    def change(tx: Transaction) -> object:
        take_note(tx, "undone")
        return object()

    with pytest.raises(ChangeFailed, match="under a key must be JSON"):
        await kept.commit(change, once=once())
    assert kept.notes() == []


@pytest.mark.parametrize(
    "change",
    [functools.partial(take_note, room="kitchen"), lambda tx, text: take_note(tx, text)],
    ids=["partial", "lambda"],
)
async def test_any_callable_can_be_a_change(kept: Kept, change: Callable[..., str]) -> None:
    for _ in range(2):
        assert (await kept.commit(change, "hello", once=once())).result == "hello"
    assert kept.notes() == ["hello"]


async def test_whatever_a_refusal_says_the_store_lives_on(kept: Kept) -> None:
    def change(tx: Transaction) -> None:
        raise Invalid("half a character: \ud800")

    for _ in range(2):
        with pytest.raises(Exception) as told:  # noqa: PT011 - what it is told is not the point
            await kept.commit(change, once=once())
        assert isinstance(told.value, Refused | StoreError)
    assert (await kept.commit(take_note, "after")).result == "after"


def query_of_a_change(tx: ReadTransaction) -> str:
    return tx.now


async def test_a_query_can_be_used_in_a_change(kept: Kept) -> None:
    now = await kept.store.write(query_of_a_change)
    assert await kept.store.read(query_of_a_change) == now


class Blocked(Refused):
    """A refusal of an application."""

    status, code = 423, "blocked"


async def test_a_refusal_of_the_application_is_answered_again_as_what_it_was(kept: Kept) -> None:
    def blocked(tx: Transaction) -> None:
        raise Blocked("somebody else is at it", field="task")

    for _ in range(2):
        with pytest.raises(Blocked, match="somebody else"):
            await kept.commit(blocked, once=once())


async def test_each_part_of_a_command_takes_effect_once_and_another_command_under_its_key_is_refused(
    kept: Kept,
) -> None:
    for _ in range(2):
        for part in ("first", "second"):
            await kept.commit(take_note, part, once=Once("ann", "key", "print", part))
    assert kept.notes() == ["first", "second"]
    with pytest.raises(Invalid, match="another command"):
        await kept.commit(take_note, "third", once=Once("ann", "key", "other", "third"))
    third, other = await kept.in_one_batch(
        (take_note, "third", Once("bob", "key", "print", "third")), (take_note, "x", Once("bob", "key", "other", "x"))
    )
    assert third.result == "third"
    assert isinstance(other, Invalid)
    assert kept.notes() == ["first", "second", "third"]
