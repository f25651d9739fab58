"""What a change acts through ends with it, stands at one moment, and has a time and ids of its own."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import ChangeFailed, Invalid
from holdfast.store.store import ReadTransaction, Transaction
from store.conftest import Kept, OpenStore, take_note


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


def query_of_a_change(tx: ReadTransaction) -> str:
    return str(tx.position("lobby"))


async def test_a_query_can_be_used_in_a_change(kept: Kept) -> None:
    position = await kept.store.write(query_of_a_change)
    assert await kept.store.read(query_of_a_change) == position


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
    again = await kept.store.write(change, fails=False)
    # SQLite gives what nobody has seen; PostgreSQL does not take back.
    assert again in (["task-3", "task-4", "list-2"], ["task-5", "task-6", "list-3"])


async def test_now_is_later_than_that_of_every_change_before_even_if_the_clock_jumps_back(
    open_store: OpenStore,
) -> None:
    clock = iter([1000.0, 1000.0, 1000.0000005, 500.0, 0.0, 1000.000001, 2000.0, *[1.0] * 100])
    kept = await open_store(wall=lambda: next(clock))

    def change(tx: Transaction) -> str:
        tx.publish("lobby", "noted", {})
        return tx.now

    times = [await kept.store.write(change) for _ in range(8)]
    assert times == sorted(set(times))
    assert times[0] == "1970-01-01T00:16:40.000000Z"
    assert times[-2] == "1970-01-01T00:33:20.000000Z"
    await kept.store.close()
    again = await open_store(wall=lambda: 3.0)  # the clock is wrong, and it is another process's life
    assert await again.store.write(change) > times[-1]


async def test_changes_of_one_batch_have_times_of_their_own(open_store: OpenStore) -> None:
    kept = await open_store(wall=lambda: 1000.0)
    times = [outcome.result for outcome in await kept.in_one_batch(*[(lambda tx: (tx.now, tx.now),)] * 20)]
    assert all(first == second for first, second in times)
    assert [first for first, _ in times] == sorted({first for first, _ in times})


async def test_the_time_of_a_rooms_newest_publication_outlives_its_log(kept: Kept) -> None:
    def times(tx: ReadTransaction) -> list[str | None]:
        return [tx.time("lobby", offset) for offset in range(4)]

    first, second = [await kept.store.write(lambda tx: (take_note(tx, tx.now), tx.now)[1]) for _ in range(2)]
    assert await kept.store.read(times) == [None, first, second, None]
    await kept.store.write(lambda tx: tx.execute("DELETE FROM holdfast_log"))
    assert await kept.store.read(times) == [None, None, second, None]
