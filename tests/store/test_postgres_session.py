"""A change that fails on PostgreSQL is undone alone; who comes second is run again; a lost answer is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from holdfast.errors import ChangeFailed, Conflict, OutcomeUnknown, StoreError, Unavailable
from holdfast.store import postgres_session, transaction
from holdfast.store.store import Once, Transaction
from store.conftest import Kept, OpenStore, take_note, until


@pytest.fixture
def kind() -> str:
    return "postgres"


@pytest.fixture
async def hasty(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A store that interrupts a change after 0.5 s."""
    monkeypatch.setattr(transaction, "CHANGE_SECONDS", 0.5)
    return await open_store()


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


def fails_and_says_nothing(tx: Transaction) -> None:
    with contextlib.suppress(psycopg.Error):
        repeats_a_row(tx)


def fails_and_goes_on(tx: Transaction) -> None:
    fails_and_says_nothing(tx)
    take_note(tx, "after a failure")


def takes_long(tx: Transaction) -> None:
    tx.one("SELECT pg_sleep(3)")


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
        "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT mine", "RELEASE holdfast_change", "START TRANSACTION",
        "ROLLBACK TO holdfast_change", "PREPARE TRANSACTION 'x'", "commit", "/* hm */ COMMIT",
        "-- hm\n;COMMIT", "ABORT",
    )
]  # fmt: skip

BAD: list[tuple[Callable[..., Any], type[BaseException], str]] = [
    (raises, ZeroDivisionError, "by zero"),
    (refuses, Conflict, "as you think"),
    (runs_out, ChangeFailed, "StopIteration"),
    (exits, ChangeFailed, "SystemExit"),
    (repeats_a_row, psycopg.errors.UniqueViolation, "note_text_key"),
    (fails_and_says_nothing, psycopg.errors.UniqueViolation, "note_text_key"),
    (fails_and_goes_on, ChangeFailed, "an earlier statement"),
    (takes_long, ChangeFailed, "more than 0.5 s"),
    (thinks_for_long, ChangeFailed, "too long"),
    (says("SELECT 1; COMMIT"), ChangeFailed, "one statement"),
    (says(r"SELECT E'\''; COMMIT; SELECT '1'"), ChangeFailed, "one statement"),
    (says("DO $$ BEGIN COMMIT; END $$"), psycopg.Error, "invalid transaction termination"),
    *((change, ChangeFailed, "may not") for change in CONTROL),
]


def bad(tx: Transaction, then: Callable[[Transaction], Any]) -> Any:
    """A change that has written and published when it goes wrong."""
    take_note(tx, "bad")
    return then(tx)


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_in_a_batch_the_good_succeed_and_each_bad_one_is_told_its_own(hasty: Kept, place: int) -> None:
    await hasty.store.write(take_note, "good-0")
    for number, (change, error, words) in enumerate(BAD):
        good = [f"good-{number}-{count}" for count in range(6)]
        changes: list[tuple[Any, ...]] = [(take_note, text) for text in good]
        changes.insert(place, (bad, change))
        outcomes = await hasty.in_one_batch(*changes)
        told = outcomes.pop(place)
        assert isinstance(told, error), (change, told)
        assert words in str(told), (change, told)
        assert [outcome.result for outcome in outcomes] == good
    notes = hasty.notes()
    assert len(notes) == 1 + 6 * len(BAD)
    assert "bad" not in notes
    assert [(record.offset, record.body.decode()) for record in hasty.said] == [
        (offset, body) for _, offset, _, body in hasty.log()
    ]
    assert [offset for _, offset, _, _ in hasty.log()] == list(range(1, len(notes) + 1))


# ── who comes second ──────────────────────────────────────────────────────────────────────────────


async def test_changes_of_two_nodes_are_as_if_each_had_been_alone(open_store: OpenStore) -> None:
    """Each reads how many there are, and writes the next: two that saw the same would make it twice."""
    nodes = [await open_store(), await open_store()]

    def change(tx: Transaction, room: str) -> int:
        row = tx.one("SELECT count(*) AS n FROM note")
        assert row is not None
        take_note(tx, f"note-{row['n']}", room)
        return int(row["n"])

    async def write(node: Kept, room: str) -> list[int]:
        return [await node.store.write(change, room) for _ in range(40)]

    numbers = await asyncio.gather(*(write(node, room) for node in nodes for room in ("lobby", "kitchen")))
    assert sorted(number for some in numbers for number in some) == list(range(160))
    for room in ("lobby", "kitchen"):
        log = nodes[0].log(room)
        assert [offset for _, offset, _, _ in log] == list(range(1, 81))
        times = nodes[0].rows(
            "SELECT log.at FROM holdfast_log log JOIN holdfast_room room ON room.id = log.room_id "
            'WHERE name = ? ORDER BY "offset"',
            room,
        )
        assert times == sorted(set(times))


async def test_publications_of_two_nodes_into_one_room_wait_for_each_other(open_store: OpenStore) -> None:
    nodes = [await open_store(wall=lambda: 1000.0), await open_store(wall=lambda: 2.0)]

    async def write(node: Kept) -> None:
        for _ in range(100):
            await node.store.write(lambda tx: tx.publish("lobby", "noted", {}))

    await asyncio.gather(*(write(node) for node in nodes))
    assert [offset for _, offset, _, _ in nodes[0].log("lobby")] == list(range(1, 201))
    await until(lambda: all(len(node.said) >= 200 for node in nodes))
    assert [[record.offset for record in node.said] for node in nodes] == [list(range(1, 201))] * 2


async def test_one_key_on_two_nodes_at_once_takes_effect_once(open_store: OpenStore) -> None:
    nodes = [await open_store(), await open_store()]
    for number in range(20):
        once = Once("ann", f"key-{number}", "print")
        outcomes = await asyncio.gather(*(node.commit(take_note, f"note-{number}", once=once) for node in nodes))
        assert [outcome.result for outcome in outcomes] == [f"note-{number}"] * 2
        assert [len(outcome.publications) for outcome in outcomes] in ([0, 1], [1, 0])
        assert outcomes[0].positions == outcomes[1].positions == (("lobby", number + 1),)
    assert nodes[0].notes() == [f"note-{number}" for number in range(20)]


async def test_a_change_whose_time_another_node_has_passed_is_run_again_later(open_store: OpenStore) -> None:
    ahead, behind = await open_store(wall=lambda: 5000.0), await open_store(wall=lambda: 10.0)

    def change(tx: Transaction) -> str:
        take_note(tx, tx.now)
        return tx.now

    first = await ahead.store.write(change)
    second = await behind.store.write(change)
    third = await ahead.store.write(change)
    assert first < second < third


async def test_a_server_whose_clock_is_wrong_goes_by_that_of_the_database(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await open_store()
    truth = datetime.now(UTC)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    said = await kept.store.write(lambda tx: tx.now)
    assert abs(datetime.fromisoformat(said) - truth) < timedelta(seconds=30)


# ── links to the database that break ──────────────────────────────────────────────────────────────


async def test_a_link_that_breaks_before_the_commit_costs_nothing(open_store: OpenStore) -> None:
    kept = await open_store()
    broke: list[int] = []

    def change(tx: Transaction, text: str) -> str:
        take_note(tx, text)
        if not broke:
            row = tx.one("SELECT pg_backend_pid() AS pid")
            assert row is not None
            broke.append(row["pid"])
            kept.rows("SELECT pg_terminate_backend(?)", row["pid"])
        tx.one("SELECT 1")
        return text

    assert await kept.store.write(change, "hello") == "hello"
    assert len(broke) == 1
    assert kept.notes() == ["hello"]
    assert [record.offset for record in kept.said] == [1]


def takes_a_number(tx: Transaction, text: str) -> str:
    tx.new_id("note")
    return take_note(tx, text)


def says(tx: Transaction, text: str) -> str:
    tx.publish("lobby", "noted", {"text": text})
    return text


@pytest.mark.parametrize("change", [takes_a_number, take_note, says])
@pytest.mark.parametrize("once", [None, Once("ann", "key", "noting")])
async def test_links_that_broke_since_the_last_change_cost_nothing(
    open_store: OpenStore, change: Callable[..., str], once: Once | None
) -> None:
    kept = await open_store()
    await kept.commit(takes_a_number, "before")
    kept.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert (await kept.commit(change, "after", once=once)).result == "after"
    assert [body for *_, body in kept.log()] == ['{"text":"before"}', '{"text":"after"}']


async def test_a_link_that_breaks_before_a_verdict_is_kept_costs_nothing(open_store: OpenStore) -> None:
    kept = await open_store()
    broke: list[int] = []

    def change(tx: Transaction) -> str:
        tx.execute("INSERT INTO note (text) VALUES ('hello')")
        row = tx.one("SELECT pg_backend_pid() AS pid")
        assert row is not None
        if not broke:
            broke.append(row["pid"])
            kept.rows("SELECT pg_terminate_backend(?)", row["pid"])
        return "done"

    once = Once("ann", "key", "noting")
    assert (await kept.commit(change, once=once)).result == "done"
    assert (await kept.commit(change, once=once)).result == "done"
    assert kept.notes() == ["hello"]


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_answer_is_lost_is_known_all_the_same(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    kept = await open_store()
    lost: list[bool] = []
    real = psycopg.Connection.execute

    def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        if query == "COMMIT" and not lost:
            lost.append(True)
            if committed:
                real(self, query)
            self.close()
            raise psycopg.OperationalError("the link broke")
        return real(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    assert await kept.store.write(take_note, "hello") == "hello"
    monkeypatch.undo()
    assert lost == [True]
    assert kept.notes() == ["hello"]
    assert [record.offset for record in kept.said] == [1]


async def test_a_commit_whose_fate_cannot_be_learned_is_said_to_be_so(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_session.FATE_SECONDS == 10.0
    monkeypatch.setattr(postgres_session, "FATE_SECONDS", 0.2)
    kept = await open_store()
    kept.looks = False  # there is no way for it either
    real = psycopg.Connection.execute

    def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        if query == "COMMIT":
            real(self, query)
            self.close()
            monkeypatch.setattr(psycopg.Connection, "connect", no_way)
            raise psycopg.OperationalError("the link broke")
        return real(self, query, *args, **options)

    def no_way(*args: Any, **options: Any) -> Any:
        raise psycopg.OperationalError("there is no way")

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    outcomes = await kept.in_one_batch((take_note, "a"), (take_note, "b"))
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 2
    monkeypatch.undo()
    assert kept.notes() == ["a", "b"]  # as it happens
    await kept.store.write(take_note, "c")
    await until(lambda: [record.offset for record in kept.said] == [1, 2, 3])  # whatever became of it, is told


async def test_a_disk_that_is_full_is_not_the_changes_fault(kept: Kept) -> None:
    def change(tx: Transaction) -> None:
        take_note(tx, "undone")
        tx.execute("DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$")

    with pytest.raises(Unavailable, match="the disk is full"):
        await kept.store.write(change)
    assert kept.notes() == []


# ── placeholders ──────────────────────────────────────────────────────────────────────────────────


async def test_changes_of_three_nodes_in_one_room_all_get_on(open_store: OpenStore) -> None:
    nodes = [await open_store() for _ in range(3)]

    async def work(node: Kept, name: str) -> None:
        for number in range(15):
            await node.store.write(take_note, f"{name} {number}")

    async def publish_elsewhere() -> None:  # as another program does, which holds the room for a while each time
        async with await psycopg.AsyncConnection.connect(nodes[0].dsn) as connection:
            while working:
                await connection.execute("SELECT holdfast_append('lobby', 'said', '{}')")
                await asyncio.sleep(0.01)
                await connection.commit()

    working = True
    elsewhere = asyncio.create_task(publish_elsewhere())
    await asyncio.gather(*(work(node, f"{place} {writer}") for place, node in enumerate(nodes) for writer in range(8)))
    working = False
    await elsewhere
    assert len(nodes[0].notes()) == 3 * 8 * 15


async def test_a_room_that_somebody_holds_is_unavailable_and_not_broken(hasty: Kept) -> None:
    with psycopg.connect(hasty.dsn) as somebody:
        somebody.execute("SELECT holdfast_append('lobby', 'said', '{}')")
        with pytest.raises(Unavailable, match="does not come to an end"):
            await hasty.store.write(take_note, "meanwhile")
        with pytest.raises(Unavailable, match="does not come to an end"):
            await hasty.store.write(lambda tx: tx.publish("lobby", "said", {}))
        assert await hasty.store.write(take_note, "elsewhere", "attic") == "elsewhere"
    assert await hasty.store.write(take_note, "after") == "after"


async def test_what_somebody_holds_holds_up_only_who_needs_it(open_store: OpenStore) -> None:
    kept = await open_store()
    await kept.store.write(take_note, "held", "lobby")

    async def write(text: str, room: str) -> None:
        await kept.store.write(take_note, text, room)

    def change_held(tx: Transaction) -> None:
        tx.execute("UPDATE note SET text = 'changed' WHERE text = 'held'")

    with psycopg.connect(kept.dsn) as somebody:
        somebody.execute("SELECT holdfast_append('lobby', 'said', '{}'), holdfast_append('new', 'said', '{}')")
        somebody.execute("UPDATE note SET text = 'held' WHERE text = 'held'")
        waiting = [
            asyncio.create_task(write(f"{room} {number}", room)) for room in ("lobby", "new") for number in range(5)
        ]
        waiting += [asyncio.create_task(kept.store.write(change_held)) for _ in range(5)]
        began = time.monotonic()
        for number in range(20):
            await write(f"attic {number}", "attic")
        assert time.monotonic() - began < 4.0  # each of those who wait would be 5 s
        somebody.commit()
    await asyncio.gather(*waiting)  # they were tried again, and are there
    assert len(kept.notes()) == 31


async def test_many_who_need_what_somebody_holds_hold_up_others_no_longer_than_one(open_store: OpenStore) -> None:
    kept = await open_store()
    await kept.store.write(take_note, "held", "lobby")

    def change_held(tx: Transaction) -> None:
        tx.execute("UPDATE note SET text = 'held' WHERE text = 'held'")

    with psycopg.connect(kept.dsn) as somebody:
        somebody.execute("UPDATE note SET text = 'held' WHERE text = 'held'")
        waiting = [asyncio.create_task(kept.store.write(change_held)) for _ in range(300)]
        await asyncio.sleep(0)
        began = time.monotonic()
        await kept.store.write(take_note, "free", "attic")
        assert time.monotonic() - began < 5.0  # each of those who wait would be 0.1 s
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in told} == {Unavailable}
        assert time.monotonic() - began < 5.0 + 5.0  # a change has 5 s
    assert await kept.store.write(take_note, "after") == "after"


async def test_who_waits_for_somebody_for_too_long_is_told_and_may_try_again_under_the_same_key(hasty: Kept) -> None:
    once = Once("ann", "key", "print")
    with psycopg.connect(hasty.dsn) as somebody:
        somebody.execute("LOCK TABLE holdfast_turn IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="does not come to an end"):
            await hasty.commit(take_note, "late", once=once)
    assert (await hasty.commit(take_note, "late", once=once)).result == "late"


async def test_an_operator_who_cancels_a_change_is_not_the_changes_fault(open_store: OpenStore) -> None:
    kept = await open_store()

    def change(tx: Transaction) -> None:
        kept.rows("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%SAVEPOINT holdfast_change%'")
        tx.one("SELECT pg_sleep(1)")

    with pytest.raises(StoreError, match="user request") as told:
        await kept.store.write(change)
    assert not isinstance(told.value, ChangeFailed)


async def test_what_is_acknowledged_is_on_the_disk_whatever_the_database_is_set_to(open_store: OpenStore) -> None:
    kept = await open_store()
    (name,) = kept.rows("SELECT current_database()")[0]
    with psycopg.connect(kept.dsn, autocommit=True) as operator:
        operator.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off'.encode())
    again = await open_store()
    said = await again.store.write(lambda tx: tx.one("SELECT current_setting('synchronous_commit') AS setting"))
    assert said == {"setting": "on"}
    with psycopg.connect(kept.dsn) as somebody:
        somebody.execute("SELECT holdfast_append('lobby', 'said', '{}')")
        assert somebody.execute("SHOW synchronous_commit").fetchone() == ("on",)
