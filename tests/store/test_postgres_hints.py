"""What nodes call out to each other is heard by the others, and by nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from holdfast.errors import TooLarge
from holdfast.protocol.codec import Codec
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_database import Database
from holdfast.store.postgres_hints import CALL_BYTES, Hints
from store.conftest import Deaf, until


class Node:
    def __init__(self, database: Database) -> None:
        self.hints = Hints(database)
        self.rooms: list[list[str]] = []
        self.words: list[object] = []
        self.hints.hinted["news"] = self.rooms.append
        self.hints.heard = self.words.append


@pytest.fixture
async def database(database: str) -> AsyncIterator[Database]:
    store = PostgresStore(database, Codec())
    await store.open(Deaf())
    found = Database(database)
    with found.connect() as connection:
        found.identify(connection, "{}")
    yield found
    await store.close()


@pytest.fixture
async def nodes(database: Database) -> AsyncIterator[tuple[Node, Node]]:
    one, two = Node(database), Node(database)
    for node in (one, two):
        node.hints.open()
    await until(lambda: one.rooms == two.rooms == [[]])  # they listen, and are to look for what they have missed
    one.rooms.clear()
    two.rooms.clear()
    yield one, two
    for node in (one, two):
        await node.hints.close()


async def test_hints_of_a_moment_are_one_call(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    for number in range(10):
        one.hints.hint("news", [f"room {number % 3}", "lobby"])
    await until(lambda: bool(two.rooms))
    assert two.rooms == [["lobby", "room 0", "room 1", "room 2"]]
    assert one.rooms == []  # it knows


async def test_too_many_rooms_are_any(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.hints.hint("news", [f"a room with a rather long name, number {number}" for number in range(1000)])
    await until(lambda: bool(two.rooms))
    assert two.rooms == [[]]


async def test_words_come_in_their_order_whatever_is_in_them(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    words = [["say", "ünï \"quoted\" \\ 'all'", number, None, {"a": [True]}] for number in range(50)]
    for word in words:
        one.hints.say(word)
    await until(lambda: len(two.words) == 50)
    assert two.words == words
    assert one.words == []


async def test_a_word_that_is_too_long_is_refused_and_one_that_just_fits_arrives(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    frame = len(json.dumps({"from": one.hints.node, "word": ""}, separators=(",", ":")))
    one.hints.say("x" * (CALL_BYTES - frame))
    await until(lambda: len(two.words) == 1)
    with pytest.raises(TooLarge, match=f"at most {CALL_BYTES} bytes"):
        one.hints.say("x" * (CALL_BYTES - frame + 1))


async def test_nonsense_from_somebody_else_harms_nobody(
    nodes: tuple[Node, Node], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = nodes
    with database.connect() as somebody:
        for nonsense in ("", "nonsense", "[]", "7", '{"news": 7}'):
            somebody.execute("SELECT pg_notify(%s, %s)", (one.hints.channel, nonsense))
    one.hints.say("sense")
    await until(lambda: two.words == ["sense"])
    assert "not understood" in caplog.text


async def test_a_listener_whose_link_breaks_listens_again_and_looks_at_everything(
    nodes: tuple[Node, Node], database: Database
) -> None:
    one, two = nodes
    with database.connect() as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await until(lambda: [] in two.rooms and [] in one.rooms)
    one.hints.hint("news", ["lobby"])
    await until(lambda: ["lobby"] in two.rooms)


async def test_who_calls_when_there_is_no_way_calls_again_later(nodes: tuple[Node, Node], database: Database) -> None:
    one, two = nodes
    one.hints.hint("news", ["first"])
    await until(lambda: bool(two.rooms))
    with database.connect() as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%pg_notify%%' "
                         "AND pid <> pg_backend_pid()")  # fmt: skip
    for _ in range(40):  # the one that breaks may be lost
        one.hints.hint("news", ["second"])
        await asyncio.sleep(0.05)
    await until(lambda: ["second"] in two.rooms)


async def test_who_shares_a_database_and_not_a_log_hears_nothing(nodes: tuple[Node, Node], database: Database) -> None:
    one, two = nodes
    with database.connect() as other:
        other.execute("SELECT pg_notify('holdfast_other', '{\"word\": 1}')")
    one.hints.say(2)
    await until(lambda: bool(two.words))
    assert two.words == [2]
