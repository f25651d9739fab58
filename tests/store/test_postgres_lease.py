"""A node that says nothing any more is gone with all its people, and soon; one that is only late is not."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from databases import Cluster, Pooler, by_way_of, create
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import User
from holdfast.store import postgres_lease, postgres_people
from holdfast.store.postgres import PostgresStore
from store.conftest import Kept, OpenStore, follow, known, until

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


@pytest.fixture
def kind() -> str:
    return "postgres"


async def test_a_node_that_says_nothing_any_more_has_left_with_all_its_people(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (postgres_lease.LEASE_SECONDS, postgres_lease.RENEW_SECONDS) == (12.0, 4.0)
    assert postgres_lease.LEASE_SECONDS + postgres_people.LOOK_SECONDS + 1 < 15
    monkeypatch.setattr(postgres_lease, "LEASE_SECONDS", 2.5)  # longer than from one look to the next
    monkeypatch.setattr(postgres_lease, "RENEW_SECONDS", 0.3)
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(two) == {"s1": "ann"})
    await asyncio.sleep(4.0)
    assert known(two) == {"s1": "ann"}  # it renews its lease
    one.store.others._looking.cancel()
    await until(lambda: two.told_people == ["ann came to lobby", "ann left lobby"])
    assert known(two) == {}
    one.store.others._looking = asyncio.create_task(one.store.others._look_for_ever())  # it only stood still
    await until(lambda: known(two) == {"s1": "ann"})


async def test_the_people_of_a_node_whose_lease_has_ended_are_met_by_nobody(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    one.store.others._looking.cancel()
    with psycopg.connect(one.dsn) as apart:
        apart.execute("UPDATE holdfast_node SET until = now() WHERE id = %s", (one.store.others._hints.node,))
    await follow(two, "lobby")
    assert known(two) == {}  # not even until the next look
    await two.store.others._look_again()
    assert two.told_people == []


async def test_when_no_lease_can_be_renewed_for_a_while_nobody_has_left(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_people.LATE_SECONDS == 6.0
    monkeypatch.setattr(postgres_lease, "LEASE_SECONDS", 1.5)
    monkeypatch.setattr(postgres_people, "LATE_SECONDS", 1.2)
    monkeypatch.setattr(postgres_lease, "RENEW_SECONDS", 0.3)
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(two) == {"s1": "ann"})
    with psycopg.connect(one.dsn) as somebody:
        somebody.execute("LOCK TABLE holdfast_node")
        await asyncio.sleep(2.5)
    await asyncio.sleep(2.0)
    assert two.told_people == ["ann came to lobby"]
    one.store.others.depart("lobby", "s1")
    await until(lambda: two.told_people == ["ann came to lobby", "ann left lobby"])


async def test_a_node_that_ends_leaves_its_people_a_grace_to_return_elsewhere(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_people, "DOUBT_SECONDS", 1.0)
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    one.store.others.attend("lobby", "s2", BOB)
    await until(lambda: known(two) == {"s1": "ann", "s2": "bob"})
    began = time.monotonic()
    await one.store.close()
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    await until(lambda: two.told_people[2:] == ["bob left lobby"])
    assert time.monotonic() - began >= 1.0
    await asyncio.sleep(1.5)
    assert len(two.told_people) == 3


async def test_a_node_that_is_about_to_end_is_nowhere_to_go_and_still_has_its_people(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(two) == {"s1": "ann"} and not one.store.others.are_none)
    began = time.monotonic()
    await one.store.others.withdraw(0.5)
    assert time.monotonic() - began >= 0.4
    assert not one.store.others.are_none  # the other one stays
    assert two.store.others.are_none
    began = time.monotonic()
    await two.store.others.withdraw(5.0)
    assert time.monotonic() - began < 1.0
    await until(lambda: one.store.others.are_none)
    assert known(two) == {"s1": "ann"}


@pytest.mark.parametrize("is_due", [False, True])
async def test_a_crash_behind_a_pooler_which_breaks_no_link_makes_nobody_leave_and_hides_nobody(
    cluster: Cluster, is_due: bool
) -> None:
    """What was seen of unlogged tables need not be on the disk: ids of transactions are given again."""
    if Pooler.program() is None:
        pytest.skip("there is no PgBouncer (Debian: apt install pgbouncer)")
    dsn = create(cluster.dsn("postgres"), "mortal")
    with Pooler(cluster.port) as pooler:
        one, two = [Kept(PostgresStore(by_way_of(dsn, pooler.port), Codec(), listen=dsn), dsn) for _ in range(2)]
        for node in (one, two):
            await node.store.open(node)
        await follow(two, "lobby")
        for number in range(200):
            one.store.others.attend("lobby", f"s{number}", User(f"user-{number}", "Somebody"))
            await asyncio.sleep(0.002)  # many transactions
        await until(lambda: len(known(two)) == 200)
        if is_due:
            for node in (one, two):
                node.store.others._lease.hasten()
        await asyncio.to_thread(cluster.kill)
        await asyncio.to_thread(cluster.start)
        one.store.others.attend("lobby", "new", BOB)
        await until(lambda: "new" in known(two))
        await asyncio.sleep(postgres_people.DOUBT_SECONDS + 1.5)
        assert len(known(two)) == 201
        assert [said for said in two.told_people if "left" in said] == []
        for node in (one, two):
            await node.store.close()
