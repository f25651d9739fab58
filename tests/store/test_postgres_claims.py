"""A session is its newest claim's, in whatever order nodes hear of their clients, and of each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest

from databases import drop
from holdfast.errors import Invalid, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import User
from holdfast.store import postgres_claims, postgres_people
from holdfast.store.postgres import PostgresStore
from store.conftest import Kept, OpenStore, follow, known, until, until_waiting

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


@pytest.fixture
def kind() -> str:
    return "postgres"


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


async def test_who_went_on_elsewhere_and_into_another_room_is_let_go_before_they_are_met_there(
    open_store: OpenStore,
) -> None:
    one, two = await open_store(), await open_store()
    await follow(one, "lobby", "attic")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    one.store.others._looking.cancel()  # it stands still
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    two.store.others.attend("attic", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(2,)])
    one.store.others._since = ""
    one.store.others._looking = asyncio.create_task(one.store.others._look_for_ever())
    await until(lambda: one.told_people == ["s1 was taken with lobby", "ann came to attic"])


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
    two.store.others._lease.hasten()
    two.store.others._wanted.set()
    await until(lambda: one.rows("SELECT node FROM holdfast_people") == [(node,)])
    await until(lambda: one.told_people == ["s1 was taken with lobby"])
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert two.told_people == []
    assert one.rows("SELECT node FROM holdfast_people") == [(node,)]


@pytest.mark.parametrize("is_lost", [False, True])
async def test_an_older_claim_that_is_written_down_again_takes_nothing_back(
    open_store: OpenStore, is_lost: bool
) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    one.store.others._looking.cancel()  # it stands still
    assert await two.store.others.take_over("s1", "ann") == ("lobby",)
    with psycopg.connect(one.dsn) as apart:  # so that it writes everybody down again before it hears of anything
        apart.execute("DELETE FROM holdfast_node WHERE id = %s", (one.store.others._hints.node,))
        if is_lost:
            apart.execute("DELETE FROM holdfast_people")  # then the newer one is there only as far as a node knows it
    if not is_lost:
        two.store.others._looking.cancel()  # who could set it right
    one.store.others._looking = asyncio.create_task(one.store.others._look_for_ever())
    await until(lambda: one.told_people == ["s1 was taken with lobby"])
    assert one.rows("SELECT node, here FROM holdfast_people") == [(two.store.others._hints.node, True)]
    assert two.told_people == []


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
    real = two.store.others._claims._asked.answer

    def answer(*args: Any) -> bool:
        done = real(*args)
        asks.cancel()  # in the same turn of the loop
        return done

    monkeypatch.setattr(two.store.others._claims._asked, "answer", answer)
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
    assert asked[postgres_claims._TAKE_OVER] <= 2
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
        if query == postgres_claims._TAKE_OVER:
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


async def test_a_claim_whose_answer_is_lost_is_made_again_and_nobody_leaves(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = [await open_store() for _ in range(3)]
    await follow(three, "lobby")
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: known(three) == {"s1": "ann"})
    real = psycopg.AsyncConnection.execute

    async def execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        done = await real(self, query, *args, **options)
        if query == postgres_claims._TAKE_OVER:
            monkeypatch.undo()
            await self.close()
            raise psycopg.OperationalError("the link to the database is gone")
        return done

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    assert await two.store.others.take_over("s1", "ann", 2) == ("lobby",)
    assert await two.store.others.take_over("s1", "ann", 3) == ()  # it has it
    await until(lambda: one.told_people == ["s1 was taken with lobby"])
    await asyncio.sleep(1.5 * postgres_people.LOOK_SECONDS)
    assert three.told_people == ["ann came to lobby"]


async def test_a_claim_that_is_refused_takes_nothing(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    assert await one.store.others.take_over("s1", "ann", 3) == ()
    with psycopg.connect(one.dsn) as apart:  # a place of before, which was written down late
        apart.execute(
            'INSERT INTO holdfast_people (room, session, "user", name, node, here, xid, at, held) '
            "SELECT 'attic', session, \"user\", name, node, here, xid, at, 0 FROM holdfast_people"
        )
    before = one.rows("SELECT room, node, held FROM holdfast_people ORDER BY room")
    assert await two.store.others.take_over("s1", "ann", 2) is None
    assert one.rows("SELECT room, node, held FROM holdfast_people ORDER BY room") == before


async def test_a_claim_that_waits_for_a_newer_one_is_refused(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    newer = {"node": "three", "sessions": ["s1"], "users": ["ann"], "links": [3]}
    async with await psycopg.AsyncConnection.connect(one.dsn) as three:
        await three.execute(postgres_claims._TAKE_OVER, newer)
        older = asyncio.create_task(two.store.others.take_over("s1", "ann", 2))
        await until_waiting(one, 1)
        await three.commit()
    assert await older is None


async def test_of_claims_that_are_not_counted_the_last_to_be_made_is_newer_than_those_it_waited_for(
    open_store: OpenStore,
) -> None:
    one, two = await open_store(), await open_store()
    one.store.others.attend("lobby", "s1", ANN)
    await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(1,)])
    claim = {"node": "three", "sessions": ["s1"], "users": ["ann"], "links": [None]}
    async with await psycopg.AsyncConnection.connect(one.dsn) as three:
        await three.execute("SELECT FROM holdfast_people FOR UPDATE")
        last = asyncio.create_task(two.store.others.take_over("s1", "ann"))
        await until_waiting(one, 1)
        await three.execute(postgres_claims._TAKE_OVER, claim)
        ((held,),) = await (await three.execute("SELECT held FROM holdfast_people")).fetchall()
        await three.commit()
    assert await last == ("lobby",)
    assert one.rows("SELECT held FROM holdfast_people")[0][0] > held


@pytest.mark.parametrize("how", ["they come", "they go"])
async def test_whoever_is_written_down_and_taken_over_at_once_stops_nobody(postgres: str, how: str) -> None:
    """The rows are locked in one order, whatever is the database's own, and wherever they stand in the table."""
    name = "holdfast_in_english"
    with psycopg.connect(postgres, autocommit=True) as connection:
        collation = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'" if connection.info.server_version >= 150000 else ""
        connection.execute(f"CREATE DATABASE {name} {collation} TEMPLATE template0".encode())
    dsn = psycopg.conninfo.make_conninfo(postgres, dbname=name)
    try:
        one = Kept(PostgresStore(dsn, Codec()), dsn)
        await one.store.open(one)
        for number, room in enumerate(("a", "B"), 1):  # in the order of English words
            one.store.others.attend(room, "s1", ANN)
            await until(lambda: one.rows("SELECT count(*) FROM holdfast_people") == [(number,)])  # noqa: B023
        node = one.store.others._hints.node
        await one.store.close()
        rows = ["a", "B"], ["s1", "s1"]
        write: tuple[str, Any] = (postgres_people._DEPART, (*rows, node))
        if how == "they come":
            write = postgres_people._ATTEND, (node, *rows, ["ann"] * 2, ["Ann"] * 2, [0.0] * 2)
        claim = {"node": "two", "sessions": ["s1"], "users": ["ann"], "links": [None]}

        async def do(query: str, given: Any) -> None:
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute(query.encode(), given)

        async with await psycopg.AsyncConnection.connect(dsn) as somebody:
            await somebody.execute("SELECT FROM holdfast_people WHERE room = 'B' FOR UPDATE")
            claimed = asyncio.create_task(do(postgres_claims._TAKE_OVER, claim))
            await until_waiting(one, 1)
            written = asyncio.create_task(do(*write))
            await until_waiting(one, 2)
        await asyncio.gather(claimed, written)
    finally:
        drop(postgres, name)
