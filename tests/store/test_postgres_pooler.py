"""A way to the database on which nothing can be listened to is refused at the start, and not found out later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import conninfo

from databases import Pooler, by_way_of, create, drop, port_of
from holdfast.errors import StoreError
from holdfast.protocol.codec import Codec
from holdfast.store import postgres_hints
from holdfast.store.postgres import PostgresStore
from store.conftest import POSTGRES_NOTES, Deaf, Kept, take_note, until


@pytest.fixture
def pooled(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How to connect to the database through a pooler in transaction mode."""
    if Pooler.program() is None:
        pytest.skip("there is no PgBouncer (Debian: apt install pgbouncer)")
    monkeypatch.setattr(postgres_hints, "LISTEN_HEARTBEAT", 0.5)
    with Pooler(port_of(database)) as pooler:
        yield by_way_of(database, pooler.port)


async def refusal(dsn: str, listen: str | None = None) -> str:
    with pytest.raises(StoreError) as refused:
        await PostgresStore(dsn, Codec(), listen=listen).open(Deaf())
    return str(refused.value)


async def test_a_pooler_in_transaction_mode_is_refused_where_is_to_be_listened(pooled: str, database: str) -> None:
    for dsn, listen in ((pooled, None), (pooled, pooled), (database, pooled)):
        assert await refusal(dsn, listen) == (
            "nothing can be heard through a pooler in transaction mode: "
            "give --listen (listen=) a way to the database itself"
        )


async def test_listening_to_another_database_is_refused(
    database: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_hints, "LISTEN_HEARTBEAT", 0.5)
    name = f"{conninfo.conninfo_to_dict(database)['dbname']}_other"
    other = create(postgres, name)
    try:
        elsewhere = "--listen (listen=) leads to another database than --store"
        assert await refusal(database, other) == elsewhere  # an empty one
        store = PostgresStore(other, Codec())
        await store.open(Deaf())
        await store.close()
        assert await refusal(database, other) == elsewhere
    finally:
        drop(postgres, name)


async def test_with_a_way_past_it_two_nodes_hear_each_other(pooled: str, database: str) -> None:
    nodes = [
        Kept(PostgresStore(pooled, Codec(), listen=database, poll=60, migrations=[POSTGRES_NOTES]), database)
        for _ in range(2)
    ]
    try:
        for node in nodes:
            await node.store.open(node)
        for number in range(10):
            await nodes[0].store.write(take_note, str(number))
        await until(lambda: len(nodes[1].said) == 10)
    finally:
        for node in nodes:
            await node.store.close()
