"""
Was anything false told, and does everybody know the truth in the end?

What is watched all the time: that who is gone is shown no longer than promised, and that no place
in a log is given twice. What is judged in the end: that all copies are what the server has, that
everything acknowledged is there, once, and that nothing is left of those who have left.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sized
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holdfast import Road
from holdfast.core.link import State
from holdfast.testing.calm import coming, present, users
from holdfast.testing.history import is_true
from holdfast.testing.server_process import LOCKED, RECORDS, REFUSED
from holdfast.testing.visitor import Command, Copy, Visitor

if TYPE_CHECKING:
    from holdfast import Hub
    from holdfast.testing.world import World

#: Somebody who is gone is shown no longer than this: a ping, its timeout, the grace, and a second. Seconds.
GHOST = 30.0 + 10.0 + 5.0 + 1.0
#: A log is trimmed once a minute, and there may have been some since then. Publications.
UNTRIMMED = RECORDS + 100
#: What is said of something wrong: texts can be long. Characters.
LONGEST = 500
#: Every road through the code that must have been taken for runs to prove anything.
REACHED = (
    "resumed", "snapshot", "resync new", "resync trimmed", "resync epoch", "resync ahead", "new epoch", "twin closed",
    "set back", "caught up", "read from the log", "left in the log", "transport full", "slow link",
    "heartbeat death", "stall", "probed", "kept out", "put out", "put out of a room", "tab", "typing seen",
    "by HTTP", "by polls", "command done", "command refused", "command unknown", "command not sent",
    "command seen",
)  # fmt: skip


class Verdict:
    """What is true of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._logs: dict[tuple[str, str, int], str] = {}  # what was committed: epoch, room, offset
        self._states: dict[tuple[str, str], list[str]] = {}  # what an epoch has come to in a room, one text an offset
        self._may_be_lost: set[str] = set()  # what was committed when the log went back

    def wrong(self, what: str) -> None:
        """Note that a promise was broken."""
        self._world.report.violations.append(f"{self._world.loop.time():.3f}: {what[:LONGEST]}")

    # All the time.

    def expect_no_ghost(self, visitor: Visitor) -> None:
        """Look, when it is time, whether somebody who is gone from now on is shown no more."""
        world = self._world
        user = visitor.user_id
        died = world.loop.time()
        processes = [server.process for server in world.servers]

        def look() -> None:
            if user is None or processes != [server.process for server in world.servers]:
                return  # others know nothing of who was there before they began
            if user in users(world.visitors):
                return  # they have another tab
            noticed = max(died, world.stood_still) + GHOST  # nobody who stands still can notice anything
            if world.loop.time() < noticed:
                world.loop.call_at(noticed, look)
                return
            for room in world.rooms:
                if self.shows(room, user):
                    self.wrong(f"{visitor.name} is gone since {died:.1f}, and still shown in {room}")

        look()

    def shows(self, room: str, user_id: str | None) -> bool:
        """Whether somebody is shown in a room."""
        return any(one.user_id == user_id for hub in self.hubs() for one in hub.members(room))

    def expect_shown(self) -> None:
        """See that everybody who is there is shown, once, and nobody else: who closes a page has left."""
        for room in self._world.rooms:
            there, may_be = (users(those(self._world.visitors, room)) for those in (present, coming))
            for shown in self._shown(room):
                if len(set(shown)) != len(shown) or not there <= set(shown) <= there | may_be:
                    self.wrong(f"{len(shown)} are shown in {room}, and not those who are there")

    def _shown(self, room: str) -> list[list[str]]:
        """Return who is shown in a room, at each server that has to know it."""
        hubs = self.hubs()
        if len(self._world.servers) > 1:  # one where nobody is in a room asks nobody who is there
            hubs = [hub for hub in hubs if hub.opened.hands.mind.room(room) is not None]
        return [sorted(user.user_id for user in hub.members(room)) for hub in hubs]

    def read_logs(self, *, goes_back: bool = False) -> None:
        """Remember what is committed, before it may be lost with its epoch; `goes_back`: some of it is."""
        with suppress(sqlite3.OperationalError):  # there are no tables yet
            ((epoch,),) = self._query("SELECT value FROM holdfast_meta WHERE key = 'epoch'")
            rows = self._query(
                "SELECT room.name, log.offset, log.body FROM holdfast_log log JOIN holdfast_room room "
                "ON room.id = log.room_id"
            )
            for room, offset, body in rows:
                if self._logs.setdefault((epoch, room, offset), body) != body:
                    self.wrong(f"{epoch}:{offset} of {room} was {self._logs[epoch, room, offset]}, and is {body}")
            for room, texts in self._entries().items():
                self._may_be_lost.update(texts if goes_back else ())
                before = self._states.get((epoch, room), [])
                both = min(len(before), len(texts))  # where older files were put back, and nobody has seen that yet
                if texts[:both] != before[:both]:
                    self.wrong(f"the state of {room} was {before[-5:]}, and is {texts[-5:]}, in one epoch")
                self._states[epoch, room] = max(before, texts, key=len)

    # In the end.

    def all_agree(self) -> bool:
        """Whether everybody knows all there is to know."""
        return not self._differences()

    def _differences(self) -> list[str]:
        hubs = self.hubs()
        if len(hubs) < len(self._world.servers):
            return ["a server is not up"]
        (epoch, heads), found = self._heads(), []
        here = {room: users(present(self._world.visitors, room)) for room in self._world.rooms}
        shown = {room: self._shown(room) for room in self._world.rooms}
        for visitor in self._world.visitors:
            if any(command.outcome == "open" for command in visitor.commands):
                found.append(f"{visitor.name} waits for the answer to a command")
            for name, copy in visitor.copies.items():
                position, head = copy.history.position, f"{epoch}:{heads.get(name, 0)}"
                if str(position) != head:
                    found.append(f"{visitor.name} is at {position} in {name}, and there is {head}")
                found += _unknown_people(visitor, name, here[name], shown[name])
        return found

    def judge(self) -> None:
        """Judge what everybody was told and has."""
        world = self._world
        self.read_logs()
        for difference in self._differences():
            self.wrong(difference)
        state = self._entries()
        self.judge_visitors()
        for visitor in [*world.visitors, *world.gone]:
            world.report.reached["moved on"] += visitor.moved
            world.report.reached["probed"] += visitor.probes
            world.report.reached["kept out"] += visitor.kept_out
            for name, copy in visitor.copies.items():
                self._judge_history(visitor.name, name, copy)
        for visitor in world.visitors:
            for name, copy in visitor.copies.items():
                self._judge_copy(visitor.name, name, copy, state.get(name, []))
        self._judge_log()
        world.report.reached["tab"] += len(world.visitors) - len(users(world.visitors))
        world.note(self._heads(), state)

    def judge_visitors(self) -> None:
        """What was told to somebody must follow what they were told before."""
        for visitor in [*self._world.visitors, *self._world.gone]:
            for error in visitor.violations:
                self.wrong(f"{visitor.name}: {type(error).__name__}: {error}")

    def _judge_log(self) -> None:
        """What need not be kept is forgotten, and the log goes on, unless a backup was put in its place."""
        for room, count in self._query(
            "SELECT name, count(*) FROM holdfast_log JOIN holdfast_room ON id = room_id GROUP BY name"
        ):
            if count > UNTRIMMED:
                self.wrong(f"the log of {room} has kept {count} publications")
        _, heads = self._heads()
        for room, texts in self._entries().items():
            if heads.get(room) != len(texts):
                self.wrong(f"{len(texts)} were published in {room}, and its log has come to {heads.get(room)}")
        for room, offset in self._query(
            "SELECT one.room_id, one.offset FROM holdfast_log one JOIN holdfast_log next "
            "ON next.room_id = one.room_id AND next.offset = one.offset + 1 WHERE next.at <= one.at"
        ):
            self.wrong(f"in room {room}, what follows {offset} is not later")
        epochs = len({epoch for epoch, _, _ in self._logs})
        self._world.report.reached["new epoch"] += epochs - 1
        if epochs > 1 + self._times_lost() + self._world.report.reached["renewed by hand"]:
            self.wrong(f"the log has begun anew {epochs - 1} times")

    def _judge_history(self, who: str, room: str, copy: Copy) -> None:
        reached, history = self._world.report.reached, copy.history
        for position, event in history.events:
            state = self._states.get((position.epoch, room), [])
            known = state[position.offset - 1 : position.offset]  # none: that epoch was over before it was read
            if known and event.data["text"] != known[0]:
                self.wrong(f"{who} was told {event.data} at {position} in {room}, and there is {known}")
        for reason, before, after in history.breaks:
            reached[f"resync {reason}"] += 1
            is_ahead = reason == "ahead"  # of the log is nobody who has taken no snapshot
            if not copy.taken and (is_ahead or not is_true(reason, before, after, kept=RECORDS)):
                self.wrong(f"{who} stood at {before} of {room}, and was told to start afresh at {after}: {reason}")
        for position, data in copy.taken:
            state = self._states.get((position.epoch, room), [])
            if len(state) < position.offset:
                continue  # that epoch was over before it was read
            reached["snapshot"] += 1
            if data != state[: position.offset]:
                self.wrong(f"{who} has a snapshot of {room} at {position}, {data[-5:]}, and there is another state")
        reached["resumed"] += history.resumed
        reached["by HTTP"] += copy.by_http
        reached["by polls"] += copy.by_polls
        reached["left in the log"] += copy.left
        self._world.note(who, room, history.position, len(history.events), copy.entries[-3:])

    def _judge_copy(self, who: str, room: str, copy: Copy, state: list[str]) -> None:
        """What a client made of what it was told must be what is there, or the end of it if it began in the middle."""
        mine, there = copy.entries, state if copy.is_whole else state[len(state) - len(copy.entries) :]
        if mine != there:
            self.wrong(f"{who} has {mine[-5:]} of {room}, and there is {there[-5:]}")

    def _judge_commands(self, counts: Counter[str]) -> None:
        for text, count in counts.items():
            if count > 1:
                self.wrong(f"{text} took effect {count} times")
            if text.endswith(REFUSED):
                self.wrong(f"{text} is refused, and is there")
        for visitor in [*self._world.visitors, *self._world.gone]:
            for command in visitor.commands:
                self._world.report.reached[f"command {command.outcome}"] += 1
                must_be_there = command.text not in self._may_be_lost
                if command.outcome == "done" and not counts[command.text] and must_be_there:
                    self.wrong(f"{command.text} was acknowledged, and is not there")
                if command.seen is False and must_be_there:
                    self.wrong(f"{command.text} was acknowledged, and who looked then did not see it")
                self._world.report.reached["command seen"] += command.seen is True
                if command.outcome in ("refused", "not sent") and counts[command.text]:
                    self.wrong(f"{command.text} was {command.outcome} ({command.reason}), and is there")

    def judge_what_is_left(self) -> None:
        """Nobody is there any more: nor may anything of them be, but what they have done."""
        rows = [row for row in self._query("SELECT room, text FROM entry ORDER BY id") if row[0] != LOCKED]
        self._judge_commands(Counter(text for _, text in rows))
        self._judge_order({text: number for number, (_, text) in enumerate(rows)})
        for hub in self.hubs():
            hands, mind = hub.opened.hands, hub.opened.hands.mind
            left: dict[str, Sized] = {
                "connections": hands.connections, "streams": hands.streams, "tasks": hands._tasks,
                "followers": hands.followers, "rooms that are asked for": hands._asked, "beats": hands._beat._beats,
                "strangers": mind._strangers, "sessions": mind._sessions, "ids": mind._by_id,
                "absent": mind._absence._sessions, "awaited": mind._absence._rooms,
                "rooms": mind._rooms, "appointments": mind._agenda,
            }  # fmt: skip
            for name, those in left.items():
                if len(those):
                    self.wrong(f"nobody is there, and there are {len(those)} {name}")
            self._world.report.reached["heartbeat death"] += hands.deaths

    def _judge_order(self, places: dict[str, int]) -> None:
        """What one client has done in a room was done in the order of its commands."""
        for visitor in self._world.gone:
            for room, copy in visitor.copies.items():
                given = [each.text for each in copy.given if each.outcome == "done" and not self._was_put_off(each)]
                done = [places[text] for text in given if text in places]
                if done != sorted(done):
                    self.wrong(f"what {visitor.name} has commanded in {room} was done in another order")

    def _was_put_off(self, command: Command) -> bool:
        """Whether a server could not do it, and was not heard: it goes again, and the next one is done already."""
        return any(command.text in server.put_off for server in self._world.servers)

    # What there is.

    def _times_lost(self) -> int:
        """Return how often the log has lost its end."""
        return self._world.report.tried["restored"] + self._world.report.tried["failed over"]

    def hubs(self) -> list[Hub]:
        """Return those that are open."""
        return [
            server.hub for server in self._world.servers if server.hub is not None and server.hub._lives is not None
        ]

    def head(self, room: str) -> str:
        """Return the newest position in a room."""
        epoch, heads = self._heads()
        return f"{epoch}:{heads.get(room, 0)}"

    def _entries(self) -> dict[str, list[str]]:
        """Return what is there, by rooms, in the order in which it came."""
        state: dict[str, list[str]] = {}
        for room, text in self._query("SELECT room, text FROM entry ORDER BY id"):
            state.setdefault(room, []).append(text)
        return state

    def _heads(self) -> tuple[str, dict[str, int]]:
        ((epoch,),) = self._query("SELECT value FROM holdfast_meta WHERE key = 'epoch'")
        return epoch, dict(self._query("SELECT name, head FROM holdfast_room ORDER BY name"))

    def _query(self, sql: str) -> list[Any]:
        return self._world.query(sql)


def _unknown_people(visitor: Visitor, room: str, here: set[str], shown: list[list[str]]) -> list[str]:
    """Return what somebody does not know of who is in a room; `shown` are those whom each server shows there."""
    client = visitor.client
    if client is None or room not in visitor.rooms:
        return [f"{visitor.name} is not in {room}"]
    status = client.status
    if status.state is not State.LIVE:
        return [f"{visitor.name} is {status.state}"]
    if status.road is Road.HTTP:
        return []  # who reads by HTTP is not told who is there
    replica = visitor.rooms[room].replica
    if not replica.is_joined:
        return [f"{visitor.name} was not let into {room}"]
    for those in shown:
        if those != sorted(here):
            return [f"{len(those)} are shown in {room}, and {len(here)} are there"]
    if replica.users.keys() != here or replica.size != len(here):
        return [f"{visitor.name} sees {len(replica.users)} ({replica.size}) in {room}, and there are {len(here)}"]
    return [f"{visitor.name} sees somebody type in {room}"] if replica.typing else []
