"""What a command under a key came to is committed with it, and answered again; and the batch is fair to each."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.errors import (
    ChangeFailed,
    Conflict,
    Invalid,
    NotFound,
    Refused,
    StoreError,
    TooMany,
    TooSlow,
    Unavailable,
)
from holdfast.store.commit import Committer
from holdfast.store.store import Once, Transaction
from store.conftest import Kept, OpenStore, take_note


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
    assert len(kept.said) == 1


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


async def test_that_it_cannot_be_done_just_now_is_not_remembered(kept: Kept) -> None:
    refusals: list[Refused] = [Unavailable("not now"), TooMany("too often"), TooSlow("too late")]

    def change(tx: Transaction) -> str:
        take_note(tx, "hello")
        if refusals:
            raise refusals[0]
        return "done"

    while refusals:
        with pytest.raises(type(refusals[0])):
            await kept.commit(change, once=once())
        del refusals[0]
    for _ in range(2):
        assert (await kept.commit(change, once=once())).result == "done"
    assert kept.notes() == ["hello"]


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


async def test_a_key_is_one_users_also_in_one_batch(kept: Kept) -> None:
    outcomes = await kept.in_one_batch(*[(make_note, user, once(user=user)) for user in ("ann", "bob")])
    assert [outcome.result for outcome in outcomes] == [Note(1, "ann"), Note(2, "bob")]


async def test_two_parts_of_one_command_in_one_batch_are_two(kept: Kept) -> None:
    parts = [Once("ann", "key", "print", part) for part in ("note #1", "note #2")]
    outcomes = await kept.in_one_batch(*[(make_note, text, part) for text, part in zip("ab", parts, strict=True)])
    assert [outcome.result for outcome in outcomes] == [Note(1, "a"), Note(2, "b")]
    assert kept.notes() == ["a", "b"]


def ends_the_transaction(tx: Transaction) -> None:
    """Take everything with it that has shared its commit so far."""
    take_note(tx, "bad")
    tx.execute("INSERT OR ROLLBACK INTO note (text) VALUES ('good-0')")


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_keys_hold_when_the_batch_is_run_again(kept: Kept) -> None:
    await kept.store.write(take_note, "good-0")
    outcomes = await kept.in_one_batch(
        (make_note, "hello", once()), (ends_the_transaction,), (make_note, "hello", once())
    )
    assert [outcome.result for outcome in outcomes[::2]] == [Note(2, "hello")] * 2
    assert isinstance(outcomes[1], StoreError)
    assert kept.notes() == ["good-0", "hello"]


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


async def test_what_fails_after_all_changes_have_run_makes_none_of_them_twice(kept: Kept) -> None:
    def unspeakable(tx: Transaction) -> object:
        raise Conflict(ValueError("a refusal that is no text"))  # type: ignore[arg-type]

    def endless(tx: Transaction) -> float:
        tx.publish("lobby", "said", {"text": "x"})
        tx.execute("INSERT INTO note (text) VALUES ('endless')")
        return object()  # type: ignore[return-value]  # which no verdict can hold

    outcomes = await kept.in_one_batch(
        (take_note, "good"),
        (unspeakable, Once("u", "k1", "f")),
        (endless, Once("u", "k2", "f")),
        (take_note, "better"),
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["Outcome", "Conflict", "ChangeFailed", "Outcome"]
    assert kept.notes() == ["good", "better"]
    assert [text for _, _, _, text in kept.log("lobby")] == ['{"text":"good"}', '{"text":"better"}']


async def test_a_batch_that_cannot_be_remembered_is_undone_before_its_changes_are_run_alone(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Committer._remember, []

    def remember(self: Committer, batch: Any) -> None:
        if len(batch) > 1:
            failed.append(len(batch))
            raise UnicodeError("of a kind that nobody thought of")
        real(self, batch)

    monkeypatch.setattr(Committer, "_remember", remember)
    outcomes = await kept.in_one_batch((take_note, "one"), (take_note, "two"))
    assert failed
    assert [type(outcome).__name__ for outcome in outcomes] == ["Outcome", "Outcome"]
    assert kept.notes() == ["one", "two"]
    assert [record.offset for record in kept.said] == [1, 2]
