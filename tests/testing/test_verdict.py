"""What is judged in the sea is what was promised, and no more."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import Event, Resync, Road
from holdfast.core.link import State
from holdfast.protocol.cursor import Position
from holdfast.testing import verdict
from holdfast.testing.history import History, Violation
from holdfast.testing.server_process import LOCKED, REFUSED
from holdfast.testing.verdict import GHOST, Verdict
from holdfast.testing.visitor import Command, Copy


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
            "CREATE TABLE holdfast_log (room_id INTEGER, offset INTEGER, body TEXT, at REAL);"
        )

    def query(self, sql: str) -> list[Any]:
        return self._connection.execute(sql).fetchall()

    def commit(self, *texts: str) -> None:
        self._connection.executemany("INSERT INTO entry (room, text) VALUES ('room-0', ?)", [(text,) for text in texts])

    def publish(self, *texts: str) -> None:
        self.commit(*texts)
        for offset, text in enumerate(texts, 1):
            self._connection.execute("INSERT INTO holdfast_log VALUES (1, ?, ?, ?)", (offset, text, offset))
        self.change(f"INSERT INTO holdfast_room VALUES (1, 'room-0', {len(texts)})")

    def change(self, sql: str) -> None:
        self._connection.executescript(sql)

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


TEXTS = ("one", "two", "three")
#: What a server has of those who are there, and where.
LEFT = {
    "connections": "connections", "streams": "streams", "_tasks": "tasks", "followers": "followers",
    "_asked": "rooms that are asked for", "_beat._beats": "beats", "mind._strangers": "strangers",
    "mind._sessions": "sessions", "mind._by_id": "ids", "mind._absence._sessions": "absent",
    "mind._absence._rooms": "awaited", "mind._rooms": "rooms", "mind._agenda": "appointments",
}  # fmt: skip


class Clock:
    """Time, which passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1.0
        self._calls: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, what: Callable[[], None]) -> None:
        self._calls.append((when, what))

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while due := [call for call in self._calls if call[0] <= until]:
            call = min(due, key=lambda call: call[0])
            self._calls.remove(call)
            self.now = call[0]
            call[1]()
        self.now = until


class Run:
    """A run in which all is well: one server, one room, and ann, who has commanded all that is there."""

    def __init__(self) -> None:
        self.log = Log()
        self.log.publish(*TEXTS)
        self.shown = ["ann"]
        self.ann = self.somebody("ann")
        self.copy: Copy = self.ann.copies["room-0"]
        self.hands = SimpleNamespace(
            deaths=0, _beat=SimpleNamespace(), mind=SimpleNamespace(_absence=SimpleNamespace())
        )
        for name in LEFT:
            self.leave(name, {})
        hub = SimpleNamespace(_lives=object(), members=self.members, opened=SimpleNamespace(hands=self.hands))
        self.server = SimpleNamespace(hub=hub, put_off=set(), process=object())
        self.clock = Clock()
        self.world: Any = SimpleNamespace(
            visitors=[self.ann],
            gone=[],
            rooms=("room-0",),
            servers=[self.server],
            loop=self.clock,
            report=SimpleNamespace(violations=[], tried=Counter(), reached=Counter()),
            query=self.log.query,
            note=lambda *what: None,
            stood_still=0.0,
        )
        self.verdict = Verdict(self.world)

    def somebody(self, name: str) -> Any:
        one = somebody(name)
        one.rooms["room-0"].replica = SimpleNamespace(is_joined=True, users={name: object()}, size=1, typing={})
        one.moved, one.probes, one.kept_out, one.violations = 0, 0, 0, []
        copy = Copy(History("room-0", name), list(TEXTS))
        copy.history.told(Resync("new", "k3f9:0"))
        for offset, text in enumerate(TEXTS, 1):
            copy.history.told(Event("room-0", "added", {"text": text}, f"k3f9:{offset}"))
        one.commands = copy.given = [Command("room-0", text, "done") for text in TEXTS]
        one.copies = {"room-0": copy}
        return one

    def members(self, room: str) -> list[Any]:
        return [SimpleNamespace(user_id=name) for name in self.shown]

    def leave(self, name: str, those: Any) -> None:
        """Have a server remember somebody."""
        *path, name = name.split(".")
        place = self.hands
        for step in path:
            place = getattr(place, step)
        setattr(place, name, those)

    def judge(self) -> list[str]:
        """Judge what everybody has, and then what is left."""
        self.verdict.judge()
        self.world.gone += self.world.visitors
        self.world.visitors.clear()
        self.verdict.judge_what_is_left()
        return self.violations

    @property
    def violations(self) -> list[str]:
        return [wrong.partition(": ")[2] for wrong in self.world.report.violations]


def at(offset: int) -> Position:
    return Position("k3f9", offset)


def commands(run: Run, text: str, outcome: str, reason: str = "") -> None:
    run.ann.commands.append(Command("room-0", text, outcome, reason))


def commits(run: Run, text: str, room: str = "room-0") -> None:
    run.log.change(f"INSERT INTO entry (room, text) VALUES ('{room}', '{text}')")


def afterwards(run: Run, sql: str) -> None:
    """Have the log change after it was read."""
    run.verdict.read_logs()
    run.log.change(sql)


GOOD: dict[str, Callable[[Run], Any]] = {
    "nothing": lambda run: None,
    "a copy that begins in the middle": lambda run: run.copy.__dict__.update(entries=["three"], is_whole=False),
    "a snapshot": lambda run: run.copy.taken.append((at(2), ["one", "two"])),
    "one of an epoch that was over": lambda run: run.copy.taken.append((Position("a1b2", 2), ["one", "other"])),
    "who has a snapshot of what is ahead": lambda run: (
        run.copy.taken.append((at(3), list(TEXTS))),
        run.copy.history.breaks.append(("ahead", at(3), at(1))),
    ),
    "what was published behind a closed door": lambda run: (
        [commits(run, "the same", LOCKED) for _ in range(2)],
        run.log.change(f"INSERT INTO holdfast_room VALUES (2, '{LOCKED}', 2)"),
    ),
    "a command of which nothing is known": lambda run: commands(run, "four", "unknown"),
    "one that was refused": lambda run: commands(run, "four", "refused"),
    "one that was put off, and goes again": lambda run: (
        run.copy.given.reverse(),
        run.server.put_off.update(("two", "three")),
    ),
    "one of which nothing is known, and which comes late": lambda run: (
        run.copy.given.reverse(),
        [setattr(command, "outcome", "unknown") for command in run.copy.given[:2]],
    ),
}
#: What somebody could be told, or have, that is false, and what is said of it.
WRONG: dict[str, Callable[[Run], Any]] = {
    "k3f9:2 of room-0 was two, and is other": lambda run: afterwards(
        run, "UPDATE holdfast_log SET body = 'other' WHERE offset = 2"
    ),
    "the state of room-0 was": lambda run: afterwards(run, "UPDATE entry SET text = 'other' WHERE id = 2"),
    "a server is not up": lambda run: setattr(run.server, "hub", None),
    "ann waits for the answer to a command": lambda run: commands(run, "four", "open"),
    "ann is at k3f9:2 in room-0, and there is k3f9:3": lambda run: setattr(run.copy.history, "position", at(2)),
    "ann is not in room-0": lambda run: run.ann.rooms.clear(),
    "ann is State.WAITING": lambda run: setattr(run.ann.client.status, "state", State.WAITING),
    "ann was not let into room-0": lambda run: setattr(run.ann.rooms["room-0"].replica, "is_joined", False),
    "2 are shown in room-0, and 1 are there": lambda run: run.shown.append("eve"),
    "ann sees 0 (1) in room-0": lambda run: run.ann.rooms["room-0"].replica.users.clear(),
    "ann sees 1 (2) in room-0": lambda run: setattr(run.ann.rooms["room-0"].replica, "size", 2),
    "ann sees somebody type": lambda run: run.ann.rooms["room-0"].replica.typing.update(eve=object()),
    "ann: Violation: she was lied to": lambda run: run.ann.violations.append(Violation("she was lied to")),
    "ann was told {'text': 'other'} at k3f9:2": lambda run: run.copy.history.events.__setitem__(
        1, (at(2), Event("room-0", "added", {"text": "other"}, "k3f9:2"))
    ),
    "was told to start afresh at k3f9:2: trimmed": lambda run: run.copy.history.breaks.append(
        ("trimmed", at(1), at(2))  # and so many are kept
    ),
    "was told to start afresh at k3f9:1: ahead": lambda run: run.copy.history.breaks.append(("ahead", at(3), at(1))),
    "ann has a snapshot of room-0": lambda run: run.copy.taken.append((at(2), ["one", "other"])),
    "ann has ['one', 'three'] of room-0": lambda run: run.copy.entries.remove("two"),
    "ann has ['two'] of room-0": lambda run: run.copy.__dict__.update(entries=["two"], is_whole=False),
    "3 were published in room-0, and its log has come to 4": lambda run: run.log.change(
        "UPDATE holdfast_room SET head = 4"
    ),
    "what follows 1 is not later": lambda run: run.log.change("UPDATE holdfast_log SET at = 2 WHERE offset = 1"),
    "the log has begun anew 1 times": lambda run: afterwards(run, "UPDATE holdfast_meta SET value = 'x7d2'"),
    "two took effect 2 times": lambda run: commits(run, "two"),
    f"four{REFUSED} is refused, and is there": lambda run: commits(run, "four" + REFUSED),
    "four was refused (too late), and is there": lambda run: (
        commits(run, "four"),
        commands(run, "four", "refused", "too late"),
    ),
    "four was not sent (), and is there": lambda run: (commits(run, "four"), commands(run, "four", "not sent")),
    "what ann has commanded in room-0 was done in another order": lambda run: run.copy.given.reverse(),
    **{
        f"nobody is there, and there are 1 {called}": lambda run, name=name: run.leave(name, {1: 1})  # type: ignore[misc]
        for name, called in LEFT.items()
    },
}


@pytest.mark.parametrize("happen", GOOD.values(), ids=GOOD)
def test_nothing_is_said_where_nothing_is_wrong(happen: Callable[[Run], Any]) -> None:
    run = Run()
    happen(run)
    assert run.judge() == []


@pytest.mark.parametrize("complaint", WRONG)
def test_what_is_wrong_is_said(complaint: str) -> None:
    run = Run()
    WRONG[complaint](run)
    assert [wrong for wrong in run.judge() if complaint in wrong]


def test_a_log_that_keeps_everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "UNTRIMMED", 3)
    assert Run().judge() == []
    monkeypatch.setattr(verdict, "UNTRIMMED", 2)
    assert Run().judge() == ["the log of room-0 has kept 3 publications"]


@pytest.mark.parametrize("why", ["restored", "failed over", "renewed by hand"])
def test_a_log_that_was_put_back_begins_anew(why: str) -> None:
    run = Run()
    run.verdict.read_logs()
    run.log.change("UPDATE holdfast_meta SET value = 'x7d2'")
    run.world.report.tried[why] += 1
    run.world.report.reached[why] += 1
    run.verdict.judge()
    assert not [wrong for wrong in run.violations if "begun anew" in wrong]


def test_what_was_told_to_those_who_are_gone_is_judged_too() -> None:
    run = Run()
    eve = run.somebody("eve")
    eve.violations.append(Violation("she was lied to"))
    eve.copies["room-0"].history.events[0] = (at(1), Event("room-0", "added", {"text": "other"}, "k3f9:1"))
    eve.commands.append(Command("room-0", "four", "done"))
    run.world.gone.append(eve)
    said = run.judge()
    assert [wrong.partition(":")[0] for wrong in said] == [
        "eve",
        "eve was told {'text'",
        "four was acknowledged, and is not there",
    ]


def leaves(run: Run, wait: float, *, stood_still: float = 0.0) -> list[str]:
    """Have ann be gone without a word; return what is said so much later."""
    run.world.visitors.remove(run.ann)
    run.world.stood_still = stood_still
    run.verdict.expect_no_ghost(run.ann)
    run.clock.wait(wait)
    return run.violations


def test_who_is_gone_may_not_be_shown_for_longer_than_promised() -> None:
    assert leaves(Run(), GHOST - 0.1) == []
    assert leaves(Run(), GHOST) == ["ann is gone since 1.0, and still shown in room-0"]
    assert leaves(Run(), GHOST, stood_still=3.0) == []
    assert len(leaves(Run(), GHOST + 2.0, stood_still=3.0)) == 1


def test_who_is_shown_no_more_or_again_is_no_ghost() -> None:
    run = Run()
    run.shown.clear()
    assert leaves(run, GHOST) == []
    other_tab, new_server = Run(), Run()
    other_tab.world.visitors.append(other_tab.somebody("ann"))
    assert leaves(other_tab, GHOST) == []
    assert leaves(new_server, GHOST / 2) == []
    new_server.server.process = object()
    new_server.clock.wait(GHOST)
    assert new_server.violations == []
