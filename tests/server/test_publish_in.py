"""A publication joins a transaction of the application's own: both are committed, or neither."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from databases import drop
from holdfast import Hub, Invalid, Malformed, StoreError
from peers import Server
from store.conftest import until

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTES = "CREATE TABLE note (text text UNIQUE)"


@pytest.fixture
async def hub(database: str) -> AsyncIterator[Hub]:
    async with Hub(database, migrations=[NOTES]) as hub:
        yield hub


async def test_it_is_committed_with_the_rest_or_not_at_all(hub: Hub, database: str) -> None:
    heard = []
    hub.subscribe(lambda publication: heard.append((publication.id, publication.data)))
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("INSERT INTO note VALUES ('undone')")
        await hub.publish_in(connection, "notes", "noted", {"text": "undone"})
        await connection.rollback()
        await connection.execute("INSERT INTO note VALUES ('done')")
        published = await hub.publish_in(connection, "notes", "noted", {"text": "done"})
        assert heard == []
    await until(lambda: heard == [(published.id, {"text": "done"})])
    assert await hub.read(lambda tx: tx.all("SELECT text FROM note")) == [{"text": "done"}]


async def test_a_connection_that_blocks_does_as_well(hub: Hub, database: str) -> None:
    with psycopg.connect(database) as connection:
        first = hub.publish_in(connection, "notes", "noted", {"n": 1})
        second = hub.publish_in(connection, "notes", "noted", {"n": 2})
    epoch = hub.opened.store.epoch
    assert (first.id, second.id) == (f"{epoch}:1", f"{epoch}:2")
    assert (await hub.publish("notes", "noted", {"n": 3})).id == f"{epoch}:3"


async def test_what_is_wrong_is_said_before_anything_is_done(hub: Hub, database: str) -> None:
    with psycopg.connect(database) as connection:
        with pytest.raises(Malformed):
            hub.publish_in(connection, "", "noted", {})
        with pytest.raises(Invalid):
            hub.publish_in(connection, "notes", "presence", {})
        hub.publish_in(connection, "notes", "noted", {})


async def test_a_connection_that_leads_to_another_database_is_refused(hub: Hub, database: str, postgres: str) -> None:
    original = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    copy = f"{original}_copy"
    with psycopg.connect(postgres, autocommit=True) as connection:
        with pytest.raises(StoreError, match="another database than the hub's"):
            hub.publish_in(connection, "notes", "noted", {})
        connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE template0'.encode())
    elsewhere = psycopg.conninfo.make_conninfo(postgres, dbname=copy)
    try:
        async with Hub(elsewhere), await psycopg.AsyncConnection.connect(elsewhere) as other:
            with pytest.raises(StoreError, match="another database than the hub's"):
                await hub.publish_in(other, "notes", "noted", {})
            await other.rollback()
            await other.execute("SELECT holdfast_append('notes', 'noted', '{}')")
    finally:
        drop(postgres, copy)
    async with await psycopg.AsyncConnection.connect(database) as mine:
        await hub.publish_in(mine, "notes", "noted", {})
        await mine.execute("UPDATE holdfast_meta SET value = 'anew' WHERE key = 'epoch'")
        with pytest.raises(StoreError, match="another life"):
            await hub.publish_in(mine, "notes", "noted", {})


async def test_on_a_file_it_is_said_what_to_do() -> None:
    async with Hub("memory:") as hub:
        with pytest.raises(StoreError, match=r"hub\.write does the same"):
            hub.publish_in(None, "notes", "noted", {})  # type: ignore[call-overload]


@pytest.fixture
def shop(tmp_path: Path, database: str) -> Iterator[Server]:
    with Server(tmp_path, "serve", "--app-dir", str(EXAMPLES), "orders:app", env={"DATABASE": database}) as server:
        yield server


async def test_the_example_does_what_it_says(shop: Server, database: str) -> None:
    cursor = (await shop.get("/live/poll?room=orders&cursor=" + (await _start(shop))))["cursor"]
    await shop.post("/orders?what=tea")
    assert (await shop.request("POST", "/orders?what=poison")).status_code == 422
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO orders (what) VALUES ('coffee')")
        other.execute("SELECT holdfast_append('orders', 'ordered', '{\"what\": \"coffee\"}')")
    told = []
    while len(told) < 2:
        answer = await shop.get(f"/live/poll?room=orders&cursor={cursor}")
        told += [event["what"] for event in answer["data"]]
        cursor = answer["cursor"]
    assert told == ["tea", "coffee"]


async def _start(shop: Server) -> str:
    """Return the cursor of a room that nothing has happened in."""
    peer = await shop.dial("/live/ws")
    await peer.next()
    await peer.send({"type": "join", "room": "orders"})
    cursor = str((await peer.until("joined"))["cursor"])
    await shop.post("/orders?what=water")
    await peer.close()
    return cursor


def test_another_role_needs_no_rights_but_to_publish_and_reads_no_secrets(database: str) -> None:
    async def make() -> None:
        async with Hub(database):
            pass

    asyncio.run(make())
    role = f"reporter_{secrets.token_hex(4)}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}".encode())
        owner.execute("CREATE SCHEMA theirs")
        try:
            owner.execute(f"GRANT USAGE ON SCHEMA theirs TO {role}".encode())
            owner.execute(f"SET ROLE {role}".encode())
            owner.execute("SET search_path = theirs")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute("SELECT public.holdfast_append('lobby', 'said', '{}')")
            owner.execute("RESET ROLE")
            owner.execute(f"GRANT EXECUTE ON FUNCTION public.holdfast_append TO {role}".encode())
            owner.execute(f"SET ROLE {role}".encode())
            assert owner.execute("SELECT public.holdfast_append('lobby', 'said', '{}')").fetchone() == (1,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute("SELECT value FROM public.holdfast_meta")
        finally:
            owner.execute("RESET ROLE")
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())
