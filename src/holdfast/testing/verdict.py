"""
Was anything false told, and does everybody know the truth in the end?

What is watched all the time: that who is gone is shown no longer than promised, and that no place
in a log is given twice. What is judged in the end: that all copies are what the server has, that
everything acknowledged is there, once, and that nothing is left of those who have left.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holdfast.core.link import State
from holdfast.testing.visitor import Copy, Visitor

if TYPE_CHECKING:
    from holdfast import Hub
    from holdfast.testing.world import World

#: Somebody who is gone is shown no longer than this: a ping, its timeout, the grace, and a second. Seconds.
GHOST = 30.0 + 10.0 + 5.0 + 1.0
#: Every road through the code that must have been taken for runs to prove anything.
REACHED = (
    "resumed", "snapshot", "resync new", "resync trimmed", "resync epoch", "heartbeat death",
    "command done", "command unknown", "by HTTP",
)  # fmt: skip


class Verdict:
    """What is true of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._logs: dict[tuple[str, str, int], str] = {}  # what was committed: epoch, room, offset

    def wrong(self, what: str) -> None:
        """Note that a promise was broken."""
        self._world.report.violations.append(f"{self._world.loop.time():.3f}: {what}")

    # All the time.

    def expect_no_ghost(self, visitor: Visitor) -> None:
        """Look, when it is time, whether somebody who is gone from now on is shown no more."""
        world = self._world
        user = visitor.client.user if visitor.client is not None else None
        died = world.loop.time()
        processes = [server.process for server in world.servers]

        def look() -> None:
            if user is None or processes != [server.process for server in world.servers]:
                return  # others know nothing of who was there before they began
            noticed = max(died, world.stood_still) + GHOST  # nobody who stands still can notice anything
            if world.loop.time() < noticed:
                world.loop.call_at(noticed, look)
                return
            for hub in self._hubs():
                for room in world.rooms:
                    if user in hub.members(room):
                        self.wrong(f"{visitor.name} is gone since {died:.1f}, and still shown in {room}")

        look()

    def read_logs(self) -> None:
        """Remember what is committed, before it may be lost with its epoch."""
        with suppress(sqlite3.OperationalError):  # there are no tables yet
            ((epoch,),) = self._query("SELECT value FROM holdfast_meta WHERE key = 'epoch'")
            rows = self._query(
                "SELECT room.name, log.offset, log.body FROM holdfast_log log JOIN holdfast_room room "
                "ON room.id = log.room_id"
            )
            for room, offset, body in rows:
                if self._logs.setdefault((epoch, room, offset), body) != body:
                    self.wrong(f"{epoch}:{offset} of {room} was {self._logs[epoch, room, offset]}, and is {body}")

    # In the end.

    def all_agree(self) -> bool:
        """Whether everybody knows all there is to know."""
        return not self._differences()

    def _differences(self) -> list[str]:
        hubs = self._hubs()
        if len(hubs) < len(self._world.servers):
            return ["a server is not up"]
        (epoch, heads), found = self._heads(), []
        for visitor in self._world.visitors:
            if any(command.outcome == "open" for command in visitor.commands):
                found.append(f"{visitor.name} waits for the answer to a command")
            for name, copy in visitor.copies.items():
                position, head = copy.history.position, f"{epoch}:{heads.get(name, 0)}"
                if str(position) != head:
                    found.append(f"{visitor.name} is at {position} in {name}, and there is {head}")
                found += self._unknown_people(visitor, name, hubs)
        return found

    def _unknown_people(self, visitor: Visitor, room: str, hubs: list[Hub]) -> list[str]:
        """Return what somebody does not know of who is in a room."""
        client = visitor.client
        if client is None or room not in visitor.rooms:
            return [f"{visitor.name} is not in {room}"]
        if client.status.state is not State.LIVE:
            return [f"{visitor.name} is {client.status.state}"]
        if client.status.road is not None and client.status.road.value == "http":
            return []  # who reads by HTTP is not told who is there
        here = {user.user_id for user in hubs[0].members(room)}
        seen = {user.user_id for user in visitor.rooms[room].users}
        return [] if seen == here else [f"{visitor.name} sees {len(seen)} in {room}, and there are {len(here)}"]

    def judge(self) -> None:
        """Judge what everybody was told and has."""
        world = self._world
        self.read_logs()
        for difference in self._differences():
            self.wrong(difference)
        rows = self._query("SELECT room, text FROM entry ORDER BY id")
        state: dict[str, list[str]] = {room: [] for room in world.rooms}
        for room, text in rows:
            state[room].append(text)
        for visitor in [*world.visitors, *world.gone]:
            for error in visitor.violations:
                self.wrong(f"{visitor.name}: {type(error).__name__}: {error}")
            for name, copy in visitor.copies.items():
                self._judge_history(visitor.name, name, copy)
        for visitor in world.visitors:
            for name, copy in visitor.copies.items():
                self._judge_copy(visitor.name, name, copy, state[name])
        self._judge_commands(Counter(text for _, text in rows))
        world.note(self._heads(), state)

    def _judge_history(self, who: str, room: str, copy: Copy) -> None:
        reached, history = self._world.report.reached, copy.history
        for position, event in history.events:
            known = self._logs.get((position.epoch, room, position.offset))  # None: it was trimmed before it was read
            if known is not None and f'"{event.data["text"]}"' not in known:
                self.wrong(f"{who} was told {event.data} at {position} in {room}, and there is {known}")
        for reason, _ in history.breaks:
            reached[f"resync {reason}"] += 1
        reached["resumed"] += history.resumed
        reached["by HTTP"] += copy.by_http
        reached["snapshot"] += copy.snapshots
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
        is_whole = not self._world.report.faults[
            "restored"
        ]  # else acknowledged ones may be gone, and clients were told
        for visitor in [*self._world.visitors, *self._world.gone]:
            for command in visitor.commands:
                self._world.report.reached[f"command {command.outcome}"] += 1
                if command.outcome == "done" and counts[command.text] != 1 and is_whole:
                    self.wrong(f"{command.text} was acknowledged, and is not there")
                if command.outcome in ("refused", "not sent") and counts[command.text]:
                    self.wrong(f"{command.text} was {command.outcome} ({command.reason}), and is there")

    def judge_what_is_left(self) -> None:
        """Nobody is there any more: nor may anything of them be."""
        for hub in self._hubs():
            hands = hub.opened.hands
            left = len(hands.connections), len(hands.streams), len(list(hands.mind.rooms())), len(hands._tasks)
            if any(left):
                self.wrong(f"nobody is there, and there are {left} connections, streams, rooms and tasks")
            self._world.report.reached["heartbeat death"] += hands.deaths

    # What there is.

    def _hubs(self) -> list[Hub]:
        return [server.hub for server in self._world.servers if server.hub is not None]

    def _heads(self) -> tuple[str, dict[str, int]]:
        ((epoch,),) = self._query("SELECT value FROM holdfast_meta WHERE key = 'epoch'")
        return epoch, dict(self._query("SELECT name, head FROM holdfast_room ORDER BY name"))

    def _query(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(str(self._world.servers[0].path))
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
