"""What nodes call out to each other is heard by the others, and by nobody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import psycopg
import pytest

from databases import Redis
from holdfast.errors import TooLarge
from holdfast.store.postgres_database import Database
from holdfast.store.postgres_hints import CALL_BYTES, SIGNATURE, WAITING_WORDS, Carrier
from holdfast.store.redis_carrier import RedisCarrier
from store.conftest import Caller, until


@pytest.fixture(params=["NOTIFY", "Redis"])
async def nodes(shared: Database, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Caller, Caller]]:
    """Two that call to each other, by each of the carriers."""
    carriers: tuple[Carrier, ...] = ()
    if request.param == "Redis":
        redis: Redis = request.getfixturevalue("redis")
        carriers = (RedisCarrier(redis.url), RedisCarrier(redis.url))
    one, two = Caller(shared, *carriers[:1]), Caller(shared, *carriers[1:])
    for node in (one, two):
        node.hints.open()
    looks = [[]] * (1 + len(carriers) // 2)
    await until(lambda: one.rooms == two.rooms == looks)  # they listen, and are to look for what they have missed
    one.rooms.clear()
    two.rooms.clear()
    yield one, two
    for node in (one, two):
        await node.hints.close()


async def test_hints_of_a_moment_are_one_call(nodes: tuple[Caller, Caller]) -> None:
    one, two = nodes
    for number in range(10):
        one.hints.hint("news", [f"room {number % 3}", "lobby"])
    await until(lambda: bool(two.rooms))
    assert two.rooms == [["lobby", "room 0", "room 1", "room 2"]]
    assert one.rooms == []  # it knows


async def test_too_many_rooms_are_any(nodes: tuple[Caller, Caller]) -> None:
    one, two = nodes
    one.hints.hint("news", [f"a room with a rather long name, number {number}" for number in range(1000)])
    await until(lambda: bool(two.rooms))
    assert two.rooms == [[]]


async def test_somewhere_is_any_room_too(nodes: tuple[Caller, Caller]) -> None:
    one, two = nodes
    one.hints.hint("news", None)
    await until(lambda: two.rooms == [[]])
    one.hints.hint("news", ["lobby"])
    one.hints.hint("news", None)
    await until(lambda: two.rooms == [[], []])


async def test_words_come_in_their_order_whatever_is_in_them(nodes: tuple[Caller, Caller]) -> None:
    one, two = nodes
    words = [["say", "ünï \"quoted\" \\ 'all'", number, None, {"a": [True]}] for number in range(50)]
    for word in words:
        one.hints.say(word)
    await until(lambda: len(two.words) == 50)
    assert two.words == words
    assert one.words == []


async def test_words_of_a_burst_that_are_given_up_are_said_to_be_once(
    nodes: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = nodes
    for burst in (1, 2):
        for number in range(WAITING_WORDS + 50):
            one.hints.say([burst, number])
        await until(lambda: len(two.words) == WAITING_WORDS)
        assert two.words == [[burst, number] for number in range(50, WAITING_WORDS + 50)]
        assert caplog.text.count("the oldest are given up") == burst
        two.words.clear()
        one.hints.say("after")
        await until(lambda: two.words == ["after"])
        two.words.clear()


async def test_a_word_that_is_too_long_is_refused_and_one_that_just_fits_arrives(nodes: tuple[Caller, Caller]) -> None:
    one, two = nodes
    frame = len(json.dumps({"from": one.hints.node, "number": 1, "word": ""}, separators=(",", ":"))) + SIGNATURE
    one.hints.say("x" * (CALL_BYTES - frame))
    await until(lambda: len(two.words) == 1)
    with pytest.raises(TooLarge, match=f"at most {CALL_BYTES} bytes"):
        one.hints.say("x" * (CALL_BYTES - frame + 1))


async def test_nonsense_from_somebody_else_harms_nobody(
    nodes: tuple[Caller, Caller], shared: Database, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = nodes
    with shared.connect() as somebody:
        for nonsense in ("", "nonsense", "[]", "7", '{"news": 7}'):
            somebody.execute("SELECT pg_notify(%s, %s)", (one.hints.channel, nonsense))
    one.hints.say("sense")
    await until(lambda: two.words == ["sense"])
    assert "not understood" in caplog.text


async def test_words_of_somebody_who_does_not_know_the_secret_are_not_heard(
    nodes: tuple[Caller, Caller], shared: Database, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = nodes
    with shared.connect() as anybody, psycopg.connect(anybody.info.dsn, autocommit=True) as listener:
        listener.execute(f'LISTEN "{one.hints.channel}"'.encode())
        anybody.execute("DROP ROLE IF EXISTS stranger")
        anybody.execute("CREATE ROLE stranger")
        anybody.execute("SET ROLE stranger")
        call = json.dumps({"from": "somebody", "number": 1, "word": "forged"})
        for payload in (call, "0" * SIGNATURE + call, one.hints._signature(call, "another") + call):
            anybody.execute("SELECT pg_notify(%s, %s)", (one.hints.channel, payload))
        anybody.execute("RESET ROLE")
        anybody.execute("DROP ROLE stranger")
        one.hints.say("said")
        await until(lambda: two.words == ["said"])
        heard = [notify.payload for notify in listener.notifies(timeout=0.2)]
        for payload in heard:  # what was said once is not heard again, nor with another word in it
            anybody.execute("SELECT pg_notify(%s, %s)", (one.hints.channel, payload))
            anybody.execute("SELECT pg_notify(%s, %s)", (one.hints.channel, payload.replace("said", "sold")))
    one.hints.say("after")
    await until(lambda: "after" in two.words)
    assert two.words == ["said", "after"]
    await until(lambda: caplog.text.count("in their name") == 3)  # each of these two, and the store, says it once


async def test_a_listener_whose_link_breaks_listens_again_and_looks_at_everything(
    nodes: tuple[Caller, Caller], shared: Database
) -> None:
    one, two = nodes
    with shared.connect() as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await until(lambda: [] in two.rooms and [] in one.rooms)
    one.hints.hint("news", ["lobby"])
    await until(lambda: ["lobby"] in two.rooms)


async def test_who_calls_on_a_link_that_has_broken_meanwhile_calls_by_another(
    nodes: tuple[Caller, Caller], shared: Database
) -> None:
    one, two = nodes
    one.hints.say("first")
    await until(lambda: two.words == ["first"])
    with shared.connect() as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%pg_notify%%' "
                         "AND pid <> pg_backend_pid()")  # fmt: skip
    one.hints.say("second")  # perhaps long after
    await until(lambda: two.words == ["first", "second"], 2.0)


async def test_who_shares_a_database_and_not_a_log_hears_nothing(
    nodes: tuple[Caller, Caller], shared: Database
) -> None:
    one, two = nodes
    with shared.connect() as other:
        other.execute("SELECT pg_notify('holdfast_other', '{\"word\": 1}')")
    one.hints.say(2)
    await until(lambda: bool(two.words))
    assert two.words == [2]
