"""Every node knows who is in the rooms that it has open, at whichever node, and soon when a node is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import psycopg
import pytest

from databases import Cluster, create
from holdfast.errors import Invalid
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import User
from holdfast.store import postgres_people
from holdfast.store.postgres import PostgresStore
from store.conftest import Kept, OpenStore, follow, known, until

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


@pytest.fixture
def kind() -> str:
    return "postgres"


async def test_who_comes_and_goes_at_one_is_known_at_the_other(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    one.store.others.attend("attic", "s1", ANN)
    await until(lambda: known(two) == {"s1": "ann"})
    one.store.others.depart("lobby", "s1")
    await until(lambda: two.told_people == ["ann came to lobby", "ann left lobby"])
    assert known(two) == {}
    assert known(one) == {}  # its own are not elsewhere


async def test_who_opens_a_room_later_meets_who_is_there(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    for number in range(50):
        one.store.others.attend("lobby", f"s{number}", User(f"user-{number}", "Somebody"))
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(50,)])
    await follow(two, "lobby")
    assert len(known(two)) == 50
    assert two.told_people == []


async def test_who_departs_is_told_of_when_what_was_written_before_is_known(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_people, "LOOK_SECONDS", 60.0)
    one, two = await open_store(), await open_store()
    await follow(one, "lobby")
    one.store._hints.hinted["people"] = lambda rooms: None  # it hears nothing
    for session in ("s1", "s2"):
        one.store.others.attend("lobby", session, ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(2,)])
    await one.store.others._look_again()  # what it hears in the look that has written them is not what follows
    await two.store.others.take_over("s1", "ann")
    for session in ("s1", "s2"):
        one.store.others.depart("lobby", session)
    await until(lambda: one.departures == [("lobby", "s1"), ("lobby", "s2")])
    assert one.told_people == ["ann came to lobby"]
    assert known(one) == {"s1": "ann"}


async def test_who_is_asked_to_leave_is_asked_at_every_node_at_once(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_people, "LOOK_SECONDS", 3.0)
    one, two = await open_store(), await open_store()
    await until(lambda: not one.store.others.are_none and not two.store.others.are_none, 1.0)  # that too
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await one.store.others.expel("ann", "lobby")
    await one.store.others.expel("bob", None)
    await until(lambda: two.told_people == ["ann is to leave lobby", "bob is to leave everything"])
    assert time.monotonic() - began < postgres_people.LOOK_SECONDS  # it was hinted at
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert one.told_people == two.told_people
    assert len(two.told_people) == 2


async def test_what_is_asked_again_because_its_answer_was_lost_is_done_once(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await open_store(), await open_store()
    real = psycopg.AsyncConnection.execute
    asked: list[Any] = []

    async def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        done = await real(self, query, *args, **options)
        if query == postgres_people._EXPEL:
            asked.append(self)
            if len(asked) == 1:
                raise psycopg.OperationalError("the answer is lost")
        return done

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    await one.store.others.expel("ann", "lobby")
    await until(lambda: two.told_people == ["ann is to leave lobby"])
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert len(asked) == 2
    assert one.told_people == two.told_people == ["ann is to leave lobby"]


async def test_rooms_whose_news_are_wanted_and_which_are_shown_to_nobody_are_forgotten(open_store: OpenStore) -> None:
    one = await open_store()
    await follow(one, "lobby", "attic")
    one.shown = {"lobby"}
    await until(lambda: one.store.others._theirs.rooms() == ["lobby"])


async def test_who_was_asked_to_leave_is_asked_once_however_the_node_hears_of_it(open_store: OpenStore) -> None:
    one = await open_store()
    await one.store.others.expel("before", "lobby")
    two = await open_store()
    await one.store.others.expel("ann", "lobby")
    await until(lambda: two.told_people == ["ann is to leave lobby"])
    two.store.others._looking.cancel()
    await one.store.others.expel("bob", "lobby")
    with psycopg.connect(one.dsn) as apart:  # it has begun long before it was committed
        apart.execute("UPDATE holdfast_expulsion SET at = now() - interval '30 s' WHERE \"user\" = 'bob'")
    for _ in range(2):
        looked, two.store.others._since = two.store.others._looked, ""
        two.store.others._looking = asyncio.create_task(two.store.others._look_for_ever())
        await until(lambda: two.store.others._looked != looked)  # noqa: B023
        two.store.others._looking.cancel()
    assert two.told_people == ["ann is to leave lobby", "bob is to leave lobby"]


async def test_who_was_met_elsewhere_and_has_come_and_gone_here_is_nowhere(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    await follow(one, "lobby")
    two.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(one) == {"s1": "ann"})
    one.store.others.attend("lobby", "s1", ANN)  # by way of another room
    assert known(one) == {}
    one.store.others.depart("lobby", "s1")
    await until(lambda: one.departures == [("lobby", "s1")])
    assert known(one) == {}


async def test_who_has_left_is_forgotten_in_the_end(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_people, "FORGET_SECONDS", 0.5)
    monkeypatch.setattr(postgres_people, "LOOK_SECONDS", 0.1)
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    one.store.others.attend("lobby", "s2", BOB)
    await until(lambda: len(known(two)) == 2)
    one.store.others.depart("lobby", "s1")
    await two.store.others.expel("cy", None)
    await until(lambda: one.rows("SELECT session FROM holdfast_people") == [("s2",)])
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_expulsion") == [(0,)])
    assert known(two) == {"s2": "bob"}


async def test_a_crash_of_the_database_makes_nobody_leave(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = create(cluster.dsn("postgres"), "mortal")
    nodes = [Kept(PostgresStore(dsn, Codec()), dsn) for _ in range(2)]
    for node in nodes:
        node.looks = False
        await node.store.open(node)
    one, two = nodes
    try:
        await follow(two, "lobby")
        one.store.others.attend("lobby", "s1", ANN)
        await until(lambda: known(two) == {"s1": "ann"})
        for _ in range(2):
            await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
            await asyncio.to_thread(cluster.start)
            with psycopg.connect(dsn) as somebody:
                await until(lambda: somebody.execute("SELECT count(*) FROM holdfast_people").fetchone() == (1,))
        await asyncio.sleep(postgres_people.DOUBT_SECONDS + 1.5)
        assert two.told_people == ["ann came to lobby"]
        one.store.others.depart("lobby", "s1")
        await until(lambda: two.told_people == ["ann came to lobby", "ann left lobby"])
    finally:
        for node in nodes:
            await node.store.close()


async def test_who_comes_with_a_new_node_while_another_looks_anew_has_come_to_stay(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = await open_store()
    await follow(two, "lobby")
    nodes: list[Kept] = []
    real = psycopg.AsyncConnection.execute

    async def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        done = await real(self, query, *args, **options)
        if query == postgres_people._MOMENT and not nodes:  # between this and the next question
            monkeypatch.undo()
            nodes.append(await open_store())
            nodes[0].store.others.attend("lobby", "s1", ANN)
            await until(lambda: two.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
        return done

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    while not nodes:  # it may be looking just now
        two.store.others._since = ""
        two.store.others._wanted.set()
        await asyncio.sleep(0.02)
    await until(lambda: known(two) == {"s1": "ann"})
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert two.told_people == ["ann came to lobby"]


async def test_who_is_written_down_here_and_is_not_here_is_struck_out(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(two) == {"s1": "ann"})
    one.store.others._wanted.set()
    await asyncio.sleep(0)  # what it is asking now is answered too late
    one.store.others.begin_anew()
    await until(lambda: two.told_people == ["ann came to lobby", "ann left lobby"])


async def test_who_is_asked_to_leave_before_a_node_that_begins_anew_has_looked_is_asked_there(
    open_store: OpenStore,
) -> None:
    one, two = await open_store(), await open_store()
    two.store.others._looking.cancel()  # it stands still
    await one.store.others.expel("ann", None)
    two.store.others.begin_anew()
    await until(lambda: two.told_people == ["ann is to leave everything"])


async def test_what_the_database_does_not_take_fails_alone_and_holds_nothing_up(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await open_store(), await open_store()
    await follow(two, "lobby")
    people = one.store.others
    for number in range(5):
        people.attend("lobby", f"s{number}", User(f"user-{number}", "A name" if number % 2 else "\0"))
    people.depart("lobby", "s2")
    asked = await asyncio.gather(
        people.take_over("\0", "ann"),
        people.take_over("s9", "ann"),
        people.meet("attic"),
        people.meet("\0"),
        people.expel("ann", "\ud800"),
        people.expel("bob", "lobby"),
        return_exceptions=True,
    )
    assert [asked[place] for place in (1, 2, 5)] == [(), None, None]
    assert [type(asked[place]) for place in (0, 3, 4)] == [Invalid, Invalid, Invalid]
    await until(lambda: known(two) == {"s1": "user-1", "s3": "user-3"})
    await until(lambda: "bob is to leave lobby" in two.told_people)
    assert people._unwritten == {}
    assert caplog.text.count("is not told to the other servers") == 2


async def test_who_was_asked_to_leave_is_asked_though_the_database_crashes_before_a_node_has_looked(
    cluster: Cluster,
) -> None:
    dsn = create(cluster.dsn("postgres"), "mortal")
    one, two = [Kept(PostgresStore(dsn, Codec()), dsn) for _ in range(2)]
    for node in (one, two):
        await node.store.open(node)
    two.store.others._looking.cancel()  # it stands still
    await one.store.others.expel("ann", None)
    cluster.kill()
    cluster.start()
    two.store.others._looking = asyncio.create_task(two.store.others._look_for_ever())
    await until(lambda: two.told_people == ["ann is to leave everything"])
    for node in (one, two):
        await node.store.close()
