"""A connection leads to the database that was identified, or is refused; a silent one ends."""

from __future__ import annotations

import asyncio
import socket
import time

import psycopg
import pytest
from psycopg import conninfo

from databases import drop
from holdfast.errors import StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_database import Database, Home, Moved, begin, with_defaults
from store.conftest import Deaf, Kept, OpenStore, until


@pytest.fixture
def kind() -> str:
    return "postgres"


def test_what_a_connection_string_does_not_say_is_said_for_it() -> None:
    said = conninfo.conninfo_to_dict(with_defaults("postgresql://ann@here,there/notes?connect_timeout=9"))
    assert {name: value for name, value in said.items() if name != "port"} == {
        "user": "ann", "host": "here,there", "dbname": "notes", "connect_timeout": "9", "application_name": "holdfast",
        "target_session_attrs": "read-write", "keepalives_idle": "5", "keepalives_interval": "2",
        "keepalives_count": "3", "tcp_user_timeout": "10000", "client_encoding": "UTF8",
    }  # fmt: skip


async def test_a_connection_that_leads_elsewhere_is_refused_and_closed(open_store: OpenStore) -> None:
    kept = await open_store()
    database = Database(kept.dsn)
    with pytest.raises(Moved):
        _ = database.here
    with pytest.raises(Moved):
        database.connect()
    with database.connect_anywhere() as connection:
        database.home, secret = database.identify(connection, "{}")
    assert secret == kept.store.secret
    assert database.here.epoch == kept.store.epoch
    database.connect().close()
    await (await database.connect_async()).close()
    for elsewhere in (Home("elsewhere", database.here.epoch), Home(database.here.place, "anew")):
        database.home = elsewhere
        with pytest.raises(Moved):
            database.connect()
        with pytest.raises(Moved):
            await database.connect_async()
    database.connect_anywhere().close()
    assert issubclass(Moved, Unavailable)


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        database = Database(f"postgresql://postgres@127.0.0.1:{mute.getsockname()[1]}/x?connect_timeout=2")
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            await asyncio.to_thread(database.connect_anywhere)
        assert time.monotonic() - began < 5.0


async def test_a_transaction_ends_by_itself_if_it_takes_too_long(open_store: OpenStore) -> None:
    kept = await open_store()
    with psycopg.connect(kept.dsn, autocommit=True) as connection:
        connection.execute(begin("SERIALIZABLE"))
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5s",)
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10s",)
        connection.execute("ROLLBACK")
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)  # others may be given it next


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_refused(postgres: str, encoding: str) -> None:
    name = f"holdfast_{encoding.lower()}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    try:
        store = PostgresStore(conninfo.make_conninfo(postgres, dbname=name), Codec())
        with pytest.raises(StoreError, match=f"encoding of the database is {encoding}"):
            await store.open(Deaf())
    finally:
        drop(postgres, name)


@pytest.mark.parametrize("said", ["", "client_encoding=LATIN1", "options='-c client_encoding=LATIN1'"])
async def test_whatever_the_environment_says_every_text_is_passed_on(
    database: str, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    kept = Kept(PostgresStore(conninfo.make_conninfo(database, **conninfo.conninfo_to_dict(said)), Codec()), database)
    kept.looks = False
    await kept.store.open(kept)
    try:
        await kept.store.write(lambda tx: tx.publish("Žofie 🦀", "said", {"text": "čau, 世界 🦀"}))
        await until(lambda: len(kept.said) == 1)
        (record,) = await kept.store.page("Žofie 🦀", 0)
        assert kept.said == [record]
        assert record.body.decode() == '{"text":"čau, 世界 🦀"}'
    finally:
        await kept.store.close()


@pytest.mark.parametrize("dsn", ["postgresql://[bad", "dbname='x"])
def test_what_libpq_cannot_read_is_refused_at_once(dsn: str) -> None:
    with pytest.raises(ValueError, match="no way to a PostgreSQL"):
        Database(dsn)
