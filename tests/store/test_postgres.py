"""A store in a PostgreSQL database: it knows whether it is itself or a copy, and outlives its server's end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from databases import Cluster, create, drop
from holdfast.errors import StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store.postgres import PostgresStore
from holdfast.store.store import Transaction
from store.conftest import POSTGRES_NOTES, Deaf, Kept, OpenStore, take_note, until


@pytest.fixture
def kind() -> str:
    return "postgres"


async def test_it_stays_itself_when_it_is_opened_again_and_by_several(open_store: OpenStore) -> None:
    first = await open_store()
    second = await open_store()
    assert (first.store.epoch, first.store.secret) == (second.store.epoch, second.store.secret)
    assert len(first.store.secret) == 64


async def test_many_that_open_an_empty_database_at_once_agree(open_store: OpenStore) -> None:
    stores = await asyncio.gather(*(open_store() for _ in range(4)))
    assert len({kept.store.epoch for kept in stores}) == 1
    for number, kept in enumerate(stores):
        await kept.store.write(take_note, str(number))
    assert stores[0].notes() == ["0", "1", "2", "3"]


async def test_a_copy_is_another_store_with_the_same_signing_key(
    open_store: OpenStore, postgres: str, database: str
) -> None:
    kept = await open_store()
    await kept.store.write(take_note, "hello")
    await kept.store.close()
    name = f"{psycopg.conninfo.conninfo_to_dict(database)['dbname']}_copy"
    try:
        with psycopg.connect(postgres, autocommit=True) as connection:
            original = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{original}"'.encode())
        copy = PostgresStore(
            psycopg.conninfo.make_conninfo(postgres, dbname=name), Codec(), migrations=[POSTGRES_NOTES]
        )
        await copy.open(Deaf())
        assert copy.epoch != kept.store.epoch
        assert copy.secret == kept.store.secret
        assert (await copy.span("lobby")).head == 1
        await copy.close()
    finally:
        drop(postgres, name)


async def test_a_migration_that_fails_says_which_and_leaves_nothing(open_store: OpenStore) -> None:
    broken = "CREATE TABLE half (id integer); SELECT nonsense"
    with pytest.raises(StoreError, match=r"migration 2 of app.*nonsense"):
        await open_store(migrations=[POSTGRES_NOTES, broken])
    kept = await open_store(migrations=[POSTGRES_NOTES, "CREATE TABLE half (id integer)"])
    assert kept.rows("SELECT count(*) FROM half") == [(0,)]


async def test_what_cannot_be_opened_keeps_no_connection(
    open_store: OpenStore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any) -> None:
        raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr("holdfast.store.postgres_feed._moment", fail)
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(StoreError, match="the connection was lost"):
                await PostgresStore(database, Codec()).open(Deaf())
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(database, autocommit=True) as connection:
            async with asyncio.timeout(5):
                while connection.execute(others).fetchone() != (0,):
                    await asyncio.sleep(0.05)
    finally:
        gc.enable()


async def test_a_database_that_cannot_be_reached_says_so() -> None:
    store = PostgresStore("postgresql://postgres@127.0.0.1:1/nothing", Codec())
    with pytest.raises(StoreError, match="cannot open the database"):
        await store.open(Deaf())


# ── a server that ends ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def mortal(cluster: Cluster) -> AsyncIterator[Kept]:
    """A store in it."""
    dsn = create(cluster.dsn("postgres"), "mortal")
    kept = Kept(PostgresStore(dsn, Codec(), migrations=[POSTGRES_NOTES]), dsn)
    kept.looks = False  # there is not always a database to look into
    await kept.store.open(kept)
    yield kept
    await kept.store.close()


async def test_what_was_acknowledged_survives_the_servers_end_and_nothing_else_is_dispatched(
    cluster: Cluster, mortal: Kept
) -> None:
    acknowledged: list[str] = []
    refused: list[Exception] = []
    has_ended = asyncio.Event()

    def change(tx: Transaction, text: str) -> None:
        if tx.one("SELECT 1 AS one FROM note WHERE text = ?", (text,)) is None:
            take_note(tx, text)

    async def write(writer: int) -> None:
        for number in itertools.takewhile(lambda _: not has_ended.is_set(), itertools.count()):
            text = f"{writer}-{number}"
            while True:
                try:
                    await mortal.store.write(change, text)
                except (StoreError, Unavailable) as error:
                    refused.append(error)
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.append(text)
                    break

    async def end() -> None:
        for _ in range(3):
            await asyncio.sleep(0.15)
            await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(cluster.start)
        await asyncio.sleep(0.15)
        has_ended.set()

    epoch = mortal.store.epoch
    await asyncio.gather(end(), *(write(writer) for writer in range(8)))
    assert sorted(mortal.notes()) == sorted(acknowledged)
    assert refused, "nobody has noticed"
    await until(lambda: len(mortal.said) >= len(acknowledged))
    assert [record.offset for record in mortal.said] == list(range(1, len(acknowledged) + 1))
    assert [(record.offset, record.body.decode()) for record in mortal.said] == [
        (offset, body) for _, offset, _, body in mortal.log()
    ]
    assert mortal.store.epoch == epoch


async def test_who_reads_while_there_is_no_server_is_told_and_can_again_when_there_is(
    cluster: Cluster, mortal: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    await mortal.store.write(take_note, "hello")
    await asyncio.gather(*(mortal.store.span("lobby") for _ in range(8)))
    cluster.stop(signal.SIGQUIT)
    outcomes: list[Any] = await asyncio.gather(*(mortal.store.span("lobby") for _ in range(8)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert {str(outcome) for outcome in outcomes} == {"the database cannot be reached"}
    assert f"port {cluster.port}" in caplog.text  # whoever runs it is told more
    with pytest.raises(Unavailable, match="cannot be reached"):
        await mortal.store.write(take_note, "nowhere")
    cluster.start()
    assert (await mortal.store.span("lobby")).head == 1
    await mortal.store.write(take_note, "again")
    assert mortal.notes() == ["hello", "again"]
