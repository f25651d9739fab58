"""What is judged in the sea is what was promised, and no more."""

from __future__ import annotations

import sqlite3
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import Road
from holdfast.core.link import State
from holdfast.testing.verdict import Verdict
from holdfast.testing.visitor import Command


def somebody(name: str, *, is_joined: bool = True, road: Road = Road.WEBSOCKET) -> Any:
    room = SimpleNamespace(replica=SimpleNamespace(is_joined=is_joined))
    status = SimpleNamespace(state=State.LIVE, road=road)
    return SimpleNamespace(name=name, user_id=name, client=SimpleNamespace(status=status), rooms={"room-0": room})


def judged(visitors: list[Any], shown: list[str]) -> list[str]:
    hub = SimpleNamespace(_lives=object(), members=lambda room: [SimpleNamespace(user_id=name) for name in shown])
    report = SimpleNamespace(violations=[])
    world: Any = SimpleNamespace(
        visitors=visitors,
        rooms=("room-0",),
        servers=[SimpleNamespace(hub=hub)],
        loop=SimpleNamespace(time=lambda: 1.0),
        report=report,
    )
    Verdict(world).expect_shown()
    return report.violations  # type: ignore[no-any-return]


def test_everybody_who_is_there_must_be_shown_once_and_nobody_else() -> None:
    ann, bob = somebody("ann"), somebody("bob")
    assert judged([ann, bob], ["bob", "ann"]) == []
    for shown in (["ann"], ["ann", "bob", "bob"], ["ann", "bob", "eve"]):
        assert len(judged([ann, bob], shown)) == 1


@pytest.mark.parametrize("shown", [["ann"], ["ann", "bob"]])
def test_who_is_on_the_way_into_a_room_may_be_shown_there_already_and_need_not(shown: list[str]) -> None:
    assert judged([somebody("ann"), somebody("bob", is_joined=False)], shown) == []


def test_who_reads_by_http_may_not_be_shown() -> None:
    ann, bob = somebody("ann"), somebody("bob", road=Road.HTTP)
    assert judged([ann, bob], ["ann"]) == []
    assert len(judged([ann, bob], ["ann", "bob"])) == 1


class Log:
    """What is committed, as the verdict asks for it."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.executescript(
            "CREATE TABLE entry (id INTEGER PRIMARY KEY, room TEXT, text TEXT);"
            "CREATE TABLE holdfast_meta (key TEXT, value TEXT); INSERT INTO holdfast_meta VALUES ('epoch', 'k3f9');"
            "CREATE TABLE holdfast_room (id INTEGER, name TEXT, head INTEGER);"
            "CREATE TABLE holdfast_log (room_id INTEGER, offset INTEGER, body TEXT);"
        )

    def query(self, sql: str) -> list[Any]:
        return self._connection.execute(sql).fetchall()

    def commit(self, *texts: str) -> None:
        self._connection.executemany("INSERT INTO entry (room, text) VALUES ('room-0', ?)", [(text,) for text in texts])

    def go_back(self) -> None:
        self._connection.executescript("DELETE FROM entry; UPDATE holdfast_meta SET value = 'x7d2'")


def test_only_what_was_there_when_the_log_went_back_may_be_gone() -> None:
    def given(text: str, *, seen: bool | None = None) -> Command:
        return Command("room-0", text, "done", seen=seen)

    log = Log()
    visitor = SimpleNamespace(commands=[given(text) for text in ("lost", "never", "after", "there")])
    visitor.commands += [given("looked for", seen=False), given("lost, and looked for", seen=False)]
    reached: Counter[str] = Counter()
    report = SimpleNamespace(violations=[], tried=Counter({"restored": 1}), reached=reached)
    world: Any = SimpleNamespace(
        visitors=[visitor], gone=[], servers=[], query=log.query, report=report, loop=SimpleNamespace(time=lambda: 1.0)
    )
    verdict = Verdict(world)
    log.commit("lost", "lost, and looked for")
    verdict.read_logs(goes_back=True)
    log.go_back()
    log.commit("there", "looked for")
    verdict.judge_what_is_left()
    assert [wrong.removeprefix("1.000: ") for wrong in report.violations] == [
        "never was acknowledged, and is not there",
        "after was acknowledged, and is not there",
        "looked for was acknowledged, and who looked then did not see it",
    ]
