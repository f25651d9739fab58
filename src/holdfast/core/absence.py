"""
Who is not here now, and may yet come: whose link broke, or who is on the way from another node?

They are awaited for the time of a grace in each room that they were in, whether or not anybody else is there.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.core.agenda import Agenda
from holdfast.protocol.messages import User


class Absentee:
    """A session that is awaited in some rooms; `link` is the newest of its client's, if those are counted."""

    __slots__ = ("link", "rooms", "user")

    def __init__(self, user: User) -> None:
        self.user = user
        self.link: int | None = None
        self.rooms: set[str] = set()


class Absence:
    """Everybody who is awaited; when it has been long enough, the agenda says `("grace", session, room)`."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._sessions: dict[str, Absentee] = {}
        self._rooms: dict[str, dict[str, User]] = {}  # by session

    def session(self, session_id: str) -> Absentee | None:
        """Return a session that is awaited anywhere."""
        return self._sessions.get(session_id)

    def room(self, name: str) -> dict[str, User]:
        """Return who is awaited in a room, by session."""
        return self._rooms.get(name, {})

    def user(self, user_id: str) -> list[tuple[str, str]]:
        """Return where a user is awaited: sessions and rooms."""
        found = [(id, absentee) for id, absentee in self._sessions.items() if absentee.user.user_id == user_id]
        return [(id, name) for id, absentee in found for name in absentee.rooms]

    def begin(self, session_id: str, user: User, link: int | None, rooms: Iterable[str], until: float) -> None:
        """Wait for a session in these rooms."""
        absentee = self._sessions.setdefault(session_id, Absentee(user))
        absentee.link = link or absentee.link
        for name in rooms:
            absentee.rooms.add(name)
            self._rooms.setdefault(name, {})[session_id] = user
            self._agenda.set(("grace", session_id, name), until)

    def end(self, session_id: str, room: str) -> None:
        """It has come to a room, or will not."""
        self._agenda.cancel(("grace", session_id, room))
        absentee = self._sessions.get(session_id)
        if absentee is None or room not in absentee.rooms:
            return
        absentee.rooms.discard(room)
        if not absentee.rooms:
            del self._sessions[session_id]
        del self._rooms[room][session_id]
        if not self._rooms[room]:
            del self._rooms[room]
