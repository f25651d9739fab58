"""What a synchronous standby does not have is not acknowledged, whatever becomes of the wait for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import psycopg
import pytest

from databases import Cluster, Standby, create
from holdfast.errors import OutcomeUnknown
from holdfast.protocol.codec import Codec
from holdfast.store.postgres import PostgresStore
from holdfast.store.store import Once, Transaction
from store.conftest import Deaf, until

WAITS = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture
def standby(cluster: Cluster) -> Iterator[Standby]:
    with Standby(cluster) as standby:
        cluster.wait_for_standby()
        yield standby


def say(tx: Transaction) -> str:
    tx.publish("lobby", "said", {})
    return "said"


@pytest.mark.parametrize(
    "how", ["terminated", *(pytest.param(how, marks=pytest.mark.long) for how in ("cancelled", "restarted"))]
)
@pytest.mark.parametrize(
    "once", [pytest.param(None, marks=pytest.mark.long), Once("ann", "key", "says")], ids=["", "under a key"]
)
async def test_a_commit_that_the_standby_does_not_have_is_not_acknowledged(
    cluster: Cluster, standby: Standby, how: str, once: Once | None
) -> None:
    dsn = create(cluster.dsn("postgres"), "followed")
    store = PostgresStore(dsn, Codec())
    await store.open(Deaf())
    try:
        assert (await store.commit(say)).positions == (("lobby", 1),)
        await asyncio.to_thread(standby.kill)
        written = asyncio.create_task(store.commit(say, once=once))
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as operator:
            await until(lambda: operator.execute(f"SELECT count(*) {WAITS}").fetchone() != (0,))
            if how == "terminated":
                operator.execute(f"SELECT pg_terminate_backend(pid) {WAITS}")
            elif how == "cancelled":
                operator.execute(f"SELECT pg_cancel_backend(pid) {WAITS}")
        if how == "restarted":
            await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
            await asyncio.to_thread(cluster.start)
        retried = asyncio.create_task(store.commit(say, once=once))
        await asyncio.sleep(3.0)
        assert not written.done()
        assert not retried.done()
        await asyncio.to_thread(standby.start)
        outcomes = await asyncio.gather(written, retried, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, OutcomeUnknown) or not isinstance(outcome, BaseException), outcome
        with psycopg.connect(standby.dsn("followed")) as follower:
            held = follower.execute('SELECT "offset" FROM holdfast_log').fetchall()
        for outcome in outcomes:
            if not isinstance(outcome, BaseException):
                assert (outcome.positions[0][1],) in held
    finally:
        await store.close()
