"""
Who is in the rooms of this node at other nodes, as far as is known here?

A person whose node is gone has left. One who is not written down any more may be written
again: a database that has just come up knows nobody, so that is borne for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from holdfast.core.inputs import Elsewhere
from holdfast.protocol.messages import User

Key = tuple[str, str]  # room and session


class Told(Protocol):
    """Who is told of people (see `Listener`)."""

    def met(self, room: str, came: Elsewhere, went: Elsewhere) -> None:
        """At other nodes, these sessions came to a room, and those left it."""


class Whereabouts:
    """The people of other nodes; `told` hears of those who come and go."""

    def __init__(self, told: Told) -> None:
        self.alive: set[str] = set()  # nodes
        self._told = told
        self._rooms: dict[str, dict[str, tuple[str, User]]] = {}  # by session: at which node, and who
        self._doubtful: dict[Key, float] = {}  # who is not written down, and until when that is borne

    def __contains__(self, room: str) -> bool:
        """Whether it is known who is in a room."""
        return room in self._rooms

    def rooms(self) -> list[str]:
        """Return those of which it is known who is there."""
        return list(self._rooms)

    def known(self, room: str) -> Elsewhere:
        """Return who is in a room."""
        return tuple((session, user) for session, (_, user) in self._rooms.get(room, {}).items())

    def meet(self, room: str, people: Iterable[tuple[str, str, User]]) -> None:
        """Learn who is in a room: sessions, with their node. Nobody is told: nobody of this node was there."""
        if room not in self._rooms:
            self._rooms[room] = {session: (node, user) for session, node, user in people}
            self.alive.update(node for node, _ in self._rooms[room].values())

    def forget(self, shows: Callable[[str], bool]) -> None:
        """Forget who is in rooms that are shown to nobody here any more."""
        self._rooms = {room: people for room, people in self._rooms.items() if shows(room)}
        self._doubtful = {key: until for key, until in self._doubtful.items() if key[0] in self._rooms}

    def clear(self) -> None:
        """Forget everybody."""
        self._rooms.clear()
        self._doubtful.clear()

    # One after the other.

    def take(self, room: str, session: str) -> None:
        """A session goes on at this node."""
        self._doubtful.pop((room, session), None)
        self._rooms.get(room, {}).pop(session, None)

    def give(self, room: str, session: str, node: str, user: User) -> None:
        """A session of this node goes on at another."""
        if room in self._rooms:
            self.alive.add(node)  # as when it comes
            self._rooms[room][session] = node, user

    def come(self, room: str, session: str, node: str, user: User) -> None:
        """A session is at a node."""
        if room not in self._rooms:
            return
        self.alive.add(node)  # if it is not among them when they are looked at next, it is gone
        is_new = session not in self._rooms[room]
        self._rooms[room][session] = node, user
        self._doubtful.pop((room, session), None)
        if is_new:
            self._told.met(room, ((session, user),), ())

    def go(self, room: str, session: str) -> None:
        """A session has left."""
        self._doubtful.pop((room, session), None)
        gone = self._rooms.get(room, {}).pop(session, None)
        if gone is not None:
            self._told.met(room, (), ((session, gone[1]),))

    def put_out(self, user_id: str, room: str | None) -> None:
        """Somebody is shown in a room no more, or in none, unless they come again."""
        for name in self._rooms if room is None else {room} & self._rooms.keys():
            for session in [one for one, (_, user) in self._rooms[name].items() if user.user_id == user_id]:
                self.take(name, session)

    # All of them.

    def compare(self, written: Iterable[tuple[str, str, str, User]], until: float) -> None:
        """Take in who is written down (room, session, node, user); who is not has until then to be."""
        people = {(room, session): (node, user) for room, session, node, user in written}
        for room, known in self._rooms.items():
            for session in known:
                if (room, session) not in people:
                    self._doubtful.setdefault((room, session), until)
        for (room, session), (node, user) in people.items():
            self.come(room, session, node, user)

    def doubt(self, alive: set[str], until: float) -> None:
        """Only these nodes seem to be alive, to one who is late: the people of the others have until then to return."""
        for room, people in self._rooms.items():
            for session, (node, _) in people.items():
                if node not in alive:
                    self._doubtful.setdefault((room, session), until)

    def bury(self, alive: set[str], now: float) -> None:
        """These nodes are alive: let go of the people of the others, and of who has not been written down again."""
        dead = self.alive - alive
        self.alive = alive
        lost = [key for key, until in self._doubtful.items() if now >= until]
        if dead:
            lost += [
                (room, session)
                for room, people in self._rooms.items()
                for session, (node, _) in people.items()
                if node in dead and (room, session) not in self._doubtful
            ]
        for room, session in lost:
            self.go(room, session)
