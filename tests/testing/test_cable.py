"""A way to a database of the sea can be cut, also in the middle of a commit; and its SQL is the real store's."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from holdfast.store import postgres_lease
from holdfast.store.postgres_database import Silent
from holdfast.testing.cable import AsyncCable, Cable, Delays, Shore, Way
from holdfast.testing.virtual import Process, VirtualLoop

SCHEMA = files("holdfast.store.schema").joinpath("postgres.sql").read_text()
APPEND = "SELECT holdfast_append_many(%s, %s, %s, %s, %s)"


class Sea:
    """A database, and two ways to it."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.shore = Shore(self.loop, random.Random(1), Delays())
        self.log = self.shore.log
        self.way, self.other = Way(self.shore), Way(self.shore)
        Cable.connect(self.way, "").execute(SCHEMA)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def append(self, cable: Cable, text: str) -> Any:
        return cable.execute(APPEND, (["room"], ["said"], [text], [1], False)).fetchone()

    def texts(self) -> list[str]:
        return [text for (text,) in self.log.query("SELECT body FROM holdfast_log ORDER BY offset")]


@pytest.fixture
def sea() -> Any:
    sea = Sea()
    yield sea
    sea.loop.close()


def test_what_is_rolled_back_has_not_happened(sea: Sea) -> None:
    cable = Cable.connect(sea.way, "")
    cable.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL lock_timeout = 1")
    assert cable.info.transaction_status == TransactionStatus.INTRANS
    assert sea.append(cable, "{}") == ([1],)
    cable.execute("ROLLBACK")
    assert sea.texts() == []
    assert sea.append(cable, '{"a": 1}') == ([1],)
    assert sea.append(cable, '{"b": 1}') == ([2],)
    assert sea.texts() == ['{"a": 1}', '{"b": 1}']


@pytest.mark.parametrize(("loses", "texts"), [("commit", []), ("answer", ["{}"])])
def test_a_commit_can_lose_itself_or_its_answer(sea: Sea, loses: str, texts: list[str]) -> None:
    cable = Cable.connect(sea.way, "")
    sea.way.loses = loses
    cable.execute("BEGIN")
    sea.append(cable, "{}")
    with pytest.raises(psycopg.OperationalError):
        cable.execute("COMMIT")
    assert cable.closed
    assert sea.texts() == texts


def test_a_way_that_is_cut_in_silence_is_given_up_after_a_while(sea: Sea) -> None:
    async def ask() -> float:
        cable = await AsyncCable.connect(sea.way, "")
        sea.way.is_silent = True
        with pytest.raises(Silent):
            await cable.execute("SELECT 1")
        assert cable.closed
        return sea.loop.time()

    assert 4.0 < sea.run(ask()) < 5.0


def test_nobody_gets_through_to_a_database_that_is_down(sea: Sea) -> None:
    cable = Cable.connect(sea.way, "")
    sea.shore.go_down()
    assert cable.closed
    with pytest.raises(psycopg.OperationalError, match="refused"):
        Cable.connect(sea.way, "")


def test_a_database_that_is_down_for_two_reasons_comes_up_when_both_are_over(sea: Sea) -> None:
    sea.shore.go_down()
    sea.shore.go_down()
    sea.shore.come_up()
    with pytest.raises(psycopg.OperationalError):
        Cable.connect(sea.way, "")
    sea.shore.come_up()
    assert sea.append(Cable.connect(sea.way, ""), "{}") == ([1],)


def test_a_call_is_heard_by_who_listens_unless_it_is_lost(sea: Sea) -> None:
    async def listen() -> list[str]:
        ear, mouth = await AsyncCable.connect(sea.way, ""), await AsyncCable.connect(sea.other, "")
        await ear.execute('LISTEN "here"')
        for call in ("one", "two", "three"):
            sea.way.hears_nothing = call == "two"
            await mouth.execute("SELECT pg_notify(%s, call) FROM unnest(%s::text[]) call", ("here", [call]))
        return [notify.payload async for notify in ear.notifies(timeout=5.0)]

    process = Process("a server")
    assert sea.run(process.run(sea.loop.create_task, listen())) == ["one", "three"]


def test_a_crash_forgets_who_is_where_and_a_standby_may_lack_the_last_commits(sea: Sea) -> None:
    cable = Cable.connect(sea.way, "")
    cable.execute(postgres_lease._ENLIST, (12.0, False, "node"))
    sea.append(cable, "{}")
    copy, place = sea.log.copy(), cable.execute("SELECT holdfast_home()").fetchone()
    sea.append(cable, "{}")
    sea.log.crash()
    assert sea.log.query("SELECT * FROM holdfast_node") == []
    assert len(sea.texts()) == 2
    sea.log.go_back(copy, is_promoted=True)
    assert len(sea.texts()) == 1
    assert cable.execute("SELECT holdfast_home()").fetchone() != place
