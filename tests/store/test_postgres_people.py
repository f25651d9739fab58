"""Every node knows who is in the rooms that it has open, at whichever node, and soon when a node is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import Any

import psycopg
import pytest

from databases import Cluster, create
from holdfast.errors import Invalid, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import User
from holdfast.store import postgres_people
from holdfast.store.postgres import PostgresStore
from store.conftest import Kept, OpenStore, until

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


@pytest.fixture
def kind() -> str:
    return "postgres"


def known(node: Kept, room: str = "lobby") -> dict[str, str]:
    return {session: user.user_id for session, user in node.store.others.known(room)}


async def follow(node: Kept, *rooms: str) -> None:
    node.followed = set(rooms)
    for room in rooms:
        await node.store.others.meet(room)


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
    await two.store.others.take_over("s1", "ann")
    for session in ("s1", "s2"):
        one.store.others.depart("lobby", session)
    await until(lambda: one.departures == [("lobby", "s1"), ("lobby", "s2")])
    assert one.told_people == ["ann came to lobby"]
    assert known(one) == {"s1": "ann"}


async def test_a_session_is_taken_over_by_its_user_and_nobody_else(open_store: OpenStore) -> None:
    one, two, three = [await open_store() for _ in range(3)]
    await follow(one, "lobby")
    await follow(three, "lobby")
    for room in ("lobby", "attic"):
        one.store.others.attend(room, "s1", ANN)
    await until(lambda: known(three) == {"s1": "ann"})
    assert await two.store.others.take_over("s1", "bob") == ()
    assert await two.store.others.take_over("s9", "ann") == ()
    assert sorted(await two.store.others.take_over("s1", "ann")) == ["attic", "lobby"]
    await until(lambda: one.told_people == ["s1 was taken with attic and lobby"])
    assert known(one) == known(three) == {"s1": "ann"}
    one.store.others.depart("lobby", "s1")  # too late: it is not its any more
    await until(lambda: one.departures == [("lobby", "s1")])
    assert known(one) == {"s1": "ann"}
    two.store.others.depart("attic", "s1")
    two.store.others.depart("lobby", "s1")
    await until(lambda: three.told_people == ["ann came to lobby", "ann left lobby"])


async def test_a_node_that_says_nothing_any_more_has_left_with_all_its_people(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (postgres_people.LEASE_SECONDS, postgres_people.RENEW_SECONDS) == (12.0, 4.0)
    assert postgres_people.LEASE_SECONDS + postgres_people.LOOK_SECONDS + 1 < 15
    monkeypatch.setattr(postgres_people, "LEASE_SECONDS", 2.5)  # longer than from one look to the next
    monkeypatch.setattr(postgres_people, "RENEW_SECONDS", 0.3)
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


async def test_when_no_lease_can_be_renewed_for_a_while_nobody_has_left(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_people.LATE_SECONDS == 6.0
    monkeypatch.setattr(postgres_people, "LEASE_SECONDS", 1.5)
    monkeypatch.setattr(postgres_people, "LATE_SECONDS", 1.2)
    monkeypatch.setattr(postgres_people, "RENEW_SECONDS", 0.3)
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
    await one.store.close()
    await until(lambda: known(two) == {"s1": "ann", "s2": "bob"})
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    await until(lambda: two.told_people[2:] == ["bob left lobby"])
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
    assert one.told_people == []
    assert len(two.told_people) == 2


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


async def test_who_is_back_before_the_node_knew_that_they_were_elsewhere_stays(open_store: OpenStore) -> None:
    one, two, three = [await open_store() for _ in range(3)]
    await follow(three, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(three) == {"s1": "ann"})
    one.store.others._looking.cancel()  # it stands still
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    two.store.others.attend("attic", "s1", ANN)
    await until(lambda: one.rows("SELECT room, here FROM holdfast_people WHERE room = 'attic'") == [("attic", True)])
    back = asyncio.create_task(one.store.others.take_over("s1", "ann"))
    await asyncio.sleep(0)
    one.store.others._looking = asyncio.create_task(one.store.others._look_for_ever())
    assert sorted(await back) == ["attic", "lobby"]
    await until(lambda: two.told_people == ["s1 was taken with attic and lobby"])
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert one.told_people == []
    assert three.told_people == ["ann came to lobby"]
    assert set(one.rows("SELECT node, here FROM holdfast_people")) == {(one.store.others._hints.node, True)}


@pytest.mark.parametrize("is_anew", [True, False])
async def test_who_went_on_elsewhere_and_left_there_before_the_node_looks_again_has_left(
    open_store: OpenStore, is_anew: bool
) -> None:
    one, two = await open_store(), await open_store()
    await follow(one, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    one.store.others._looking.cancel()  # it stands still
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    two.store.others.depart("lobby", "s1")
    await until(lambda: one.rows("SELECT here FROM holdfast_people") == [(False,)])
    if is_anew:
        one.store.others._since = ""
    one.store.others._looking = asyncio.create_task(one.store.others._look_for_ever())
    await until(lambda: one.told_people == ["s1 was taken with lobby", "ann left lobby"])


async def test_the_newest_claim_holds_a_session_in_whatever_order_it_is_written_down(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    node = two.store.others._hints.node
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    one.store.others._looking.cancel()
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    with psycopg.connect(one.dsn) as apart:
        apart.execute("TRUNCATE holdfast_people, holdfast_node")  # as a crash of the database does
    one.store.others._looking = asyncio.create_task(one.store.others._look_for_ever())
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])  # perhaps the older claim
    two.store.others._renewed = -float("inf")
    two.store.others._wanted.set()
    await until(lambda: one.rows("SELECT node FROM holdfast_people") == [(node,)])
    await until(lambda: one.told_people == ["s1 was taken with lobby"])
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert two.told_people == []
    assert one.rows("SELECT node FROM holdfast_people") == [(node,)]


async def test_of_links_that_are_counted_the_newest_holds_a_session_whenever_others_are_heard(
    open_store: OpenStore,
) -> None:
    one, two, three = [await open_store() for _ in range(3)]
    await follow(three, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(three) == {"s1": "ann"})
    assert await two.store.others.take_over("s1", "ann", 3) == ("lobby",)
    assert await one.store.others.take_over("s1", "ann", 2) is None
    assert await two.store.others.take_over("s1", "ann", 5) == ()  # it has it
    assert await one.store.others.take_over("s1", "ann", 4) is None
    assert await one.store.others.take_over("s1", "bob", 6) == ()
    claims = (three.store.others.take_over("s1", "ann", link) for link in (7, 8, 6))
    assert await asyncio.gather(*claims) == [None, ("lobby",), None]
    await until(lambda: two.told_people == ["s1 was taken with lobby"])
    assert one.told_people == ["s1 was taken with lobby"]


async def test_what_somebody_else_claims_gives_the_session_of_nobody_away(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    assert await one.store.others.take_over("s1", "bob") == ()  # by the clock: newer than every link that is counted
    assert await two.store.others.take_over("s1", "ann", 2) == ("lobby",)
    await until(lambda: one.told_people == ["s1 was taken with lobby"])
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert two.told_people == []
    assert one.rows("SELECT node FROM holdfast_people") == [(two.store.others._hints.node,)]


async def test_what_is_answered_just_when_nobody_waits_any_more_is_awaited(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    real = two.store.others._returns.answer

    def answer(*args: Any) -> bool:
        done = real(*args)
        asks.cancel()  # in the same turn of the loop
        return done

    monkeypatch.setattr(two.store.others._returns, "answer", answer)
    asks = asyncio.create_task(two.store.others.take_over("s1", "ann"))
    with pytest.raises(asyncio.CancelledError):
        await asks
    assert two.told_people == ["ann may yet come as s1 to lobby"]


async def test_whether_a_session_can_be_claimed_is_said(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_people, "ASK_SECONDS", 0.2)
    one = await open_store()
    with pytest.raises(Invalid):
        await one.store.others.take_over("\0", "ann")
    one.store.others._looking.cancel()
    with pytest.raises(Unavailable):
        await one.store.others.take_over("s1", "ann")


async def test_a_crowd_that_comes_from_another_node_is_taken_over_and_meets_its_rooms_with_a_few_questions(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await open_store(), await open_store()
    rooms = [f"room-{number}" for number in range(50)]
    for number in range(1000):
        one.store.others.attend(rooms[number % 50], f"s{number}", User(f"user-{number}", "Somebody"))
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1000,)])
    two.followed = set(rooms)
    asked = Counter[str]()
    real = psycopg.AsyncConnection.execute

    async def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        asked[query if isinstance(query, str) else query.decode()] += 1
        return await real(self, query, *args, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    others = two.store.others
    taken = await asyncio.gather(*(others.take_over(f"s{number}", f"user-{number}") for number in range(1000)))
    await asyncio.gather(*(others.meet(room) for room in rooms * 20))
    assert taken == [(rooms[number % 50],) for number in range(1000)]
    assert asked[postgres_people._TAKE_OVER] <= 2
    assert asked[postgres_people._IN_ROOMS] <= 2


async def test_who_goes_away_while_their_session_is_taken_over_may_yet_come(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = [await open_store() for _ in range(3)]
    await follow(three, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(three) == {"s1": "ann"})
    asks = asyncio.create_task(two.store.others.take_over("s1", "ann"))
    real = psycopg.AsyncConnection.execute

    async def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        done = await real(self, query, *args, **options)
        if query == postgres_people._TAKE_OVER:
            asks.cancel()
        return done

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    with pytest.raises(asyncio.CancelledError):
        await asks
    await until(lambda: two.told_people == ["ann may yet come as s1 to lobby"])
    await until(lambda: one.told_people == ["s1 was taken with lobby"])
    assert three.told_people == ["ann came to lobby"]
    two.store.others.depart("lobby", "s1")
    await until(lambda: three.told_people == ["ann came to lobby", "ann left lobby"])


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
