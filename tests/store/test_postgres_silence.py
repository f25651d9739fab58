"""
A link to PostgreSQL that falls silent, while something on the way still acknowledges every byte: nobody waits for ever,
and nobody else for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from databases import by_way_of, port_of
from faults import Proxy, in_a_thread
from holdfast.errors import Unavailable
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import User
from holdfast.store import postgres_database, postgres_feed
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_database import Database
from holdfast.store.store import ReadTransaction, Transaction
from store.conftest import POSTGRES_NOTES, Kept, OpenStore, take_note, until


@pytest.fixture
def kind() -> str:
    return "postgres"


@pytest.fixture
def wire(database: str) -> Iterator[Proxy]:
    with in_a_thread(Proxy(port_of(database))) as proxy:
        yield proxy


@pytest.fixture
async def far(database: str, wire: Proxy) -> AsyncIterator[Kept]:
    """A node that reaches the database by `wire`."""
    node = Kept(PostgresStore(by_way_of(database, wire.port), Codec(), migrations=[POSTGRES_NOTES]), database)
    await node.store.open(node)
    yield node
    wire.restore()
    await node.store.close()


def count(tx: ReadTransaction) -> Any:
    return tx.all("SELECT count(*) AS notes FROM note")[0]["notes"]


async def test_a_connection_that_hears_nothing_is_given_up(wire: Proxy, database: str) -> None:
    assert (postgres_database.SILENCE_SECONDS, postgres_database.ASYNC_SILENCE_SECONDS) == (10.0, 4.0)
    connection = await asyncio.to_thread(Database(by_way_of(database, wire.port)).connect_anywhere, patience=1.0)
    assert connection.execute("SELECT pg_sleep(0.1)::text").fetchone() == ("",)
    wire.silence()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        await asyncio.to_thread(connection.execute, "SELECT 1")
    assert 1.0 <= time.monotonic() - began < 5.0
    assert connection.broken


async def test_a_long_answer_is_no_silence(database: str) -> None:
    connection = await asyncio.to_thread(Database(database).connect_anywhere, patience=0.5)
    slowly = "SELECT pg_sleep(0.2)::text, repeat('x', 10000) FROM generate_series(1, 10)"
    rows = await asyncio.to_thread(lambda: connection.execute(slowly).fetchall())
    assert len(rows) == 10
    connection.close()


async def test_who_only_listens_may_hear_nothing_for_long(
    far: Kept, caplog: pytest.LogCaptureFixture, open_store: OpenStore
) -> None:
    await asyncio.sleep(postgres_database.ASYNC_SILENCE_SECONDS + 2.0)
    assert not caplog.records


async def test_everybody_who_waits_is_told_when_the_node_finds_that_it_knows_nothing(
    far: Kept, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await far.store.write(take_note, "before")
    far.looks = False
    assert await far.store.read(count) == 1
    monkeypatch.setattr(postgres_feed, "AWAY_SECONDS", 1.0)
    await asyncio.sleep(2 * postgres_feed.POLL_SECONDS)  # the next one counts from here
    wire.silence()
    began = time.monotonic()
    asked = [asyncio.ensure_future(far.store.read(count)) for _ in range(40)]
    asked += [asyncio.ensure_future(far.store.write(take_note, f"note {number}")) for number in range(40)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert far.turns == ["away"]
    assert time.monotonic() - began < 8.0  # some were just dialling
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await far.store.read(count)
        with pytest.raises(Unavailable):
            await far.store.write(take_note, "meanwhile")
    assert time.monotonic() - began < 2.0
    wire.restore()
    await until(lambda: far.turns == ["away", "back"], 20.0)
    began = time.monotonic()
    assert set(await asyncio.gather(*(far.store.read(count) for _ in range(8)))) == {1}
    await far.store.write(take_note, "after")
    assert time.monotonic() - began < 4.0  # nothing that was dialled before is used again
    assert far.notes() == ["before", "after"]


async def test_what_a_silent_node_has_locked_is_free_again_soon(far: Kept, wire: Proxy, open_store: OpenStore) -> None:
    near = await open_store()
    far.looks = near.looks = False

    def write_and_fall_silent(tx: Transaction) -> None:
        take_note(tx, "the same")
        wire.silence()

    first = asyncio.ensure_future(far.store.write(write_and_fall_silent))
    await until(lambda: wire.is_silent)
    began = time.monotonic()
    while True:
        try:
            await near.store.write(take_note, "the same")
            break
        except Exception:  # it waits for the first for as long as a change may take
            assert time.monotonic() - began < 20.0
    wire.restore()
    outcome = (await asyncio.gather(first, return_exceptions=True))[0]
    assert isinstance(outcome, Exception)
    assert near.notes() == ["the same"]


async def test_a_commit_that_was_swallowed_is_made_again(
    far: Kept, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    swallowed: list[bool] = []
    real = psycopg.Connection.execute

    def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        if query == "COMMIT" and not swallowed:
            swallowed.append(True)
            wire.silence()
        return real(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    writing = asyncio.ensure_future(far.store.write(take_note, "hello"))
    await until(lambda: bool(swallowed))
    await asyncio.sleep(1.0)
    wire.restore()
    assert await writing == "hello"
    await until(lambda: [record.offset for record in far.said] == [1])
    assert far.notes() == ["hello"]


@pytest.mark.long
async def test_hosts_that_are_dark_are_passed_over_one_after_the_other(database: str, open_store: OpenStore) -> None:
    near = await open_store()
    with in_a_thread(Proxy(port_of(database))) as one, in_a_thread(Proxy(port_of(database))) as two:
        ports = f"{one.port},{two.port},{port_of(database)}"
        dsn = conninfo.make_conninfo(database, host="127.0.0.1,127.0.0.1,127.0.0.1", port=ports, connect_timeout=4)
        far = Kept(PostgresStore(dsn, Codec(), migrations=[POSTGRES_NOTES]), database)
        far.looks = near.looks = False
        await far.store.open(far)
        try:
            await far.store.others.meet("lobby")
            one.silence()
            two.silence()
            near.store.others.attend("lobby", "session", User("ann", "Ann"))
            await until(lambda: far.told_people == ["ann came to lobby"], 60.0)
            await near.store.write(take_note, "hello")
            await until(lambda: [record.offset for record in far.said] == [1], 30.0)
            assert far.turns[-1:] in ([], ["back"])
            await far.store.write(take_note, "here too")
        finally:
            await far.store.close()
