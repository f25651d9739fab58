"""
Who is in a room?

A person is one entry, however many sessions (tabs) they hold it with. A session that
ended uncleanly keeps its person for a grace period, so that nobody flickers through a
short reconnect; when the grace is over, the mind says `leave` again, without it.
"""

from __future__ import annotations

from enum import Enum
from itertools import islice

from holdfast.protocol.messages import User

#: `users` in `joined` and `presence` names at most this many; `roomSize` counts all.
USERS_SHOWN = 100


class _Place(Enum):
    """Where a session is."""

    HERE = "here"
    GRACE = "grace"  # it broke off, and may return
    ELSEWHERE = "elsewhere"  # on another node


class _Person:
    __slots__ = ("sessions", "user")

    def __init__(self, user: User) -> None:
        self.user = user
        self.sessions: dict[str, _Place] = {}


class Roster:
    """The people of one room, in the order they came."""

    __slots__ = ("_here", "_people")

    def __init__(self) -> None:
        self._people: dict[str, _Person] = {}
        self._here = 0  # sessions that are on this node, or may return to it

    def __len__(self) -> int:
        return len(self._people)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._people

    @property
    def is_elsewhere(self) -> bool:
        """Whether nobody of those who are in the room is on this node, or may yet return to it."""
        return not self._here

    def users(self) -> tuple[User, ...]:
        """Return everybody."""
        return tuple(person.user for person in self._people.values())

    def shown(self) -> tuple[User, ...]:
        """Return the first of them, as many as one message names."""
        return tuple(person.user for person in islice(self._people.values(), USERS_SHOWN))

    def connected(self, user_id: str) -> bool:
        """Whether a person has a session on this node right now, and not only a grace period."""
        person = self._people.get(user_id)
        return person is not None and _Place.HERE in person.sessions.values()

    def enter(self, user: User, session: str) -> bool:
        """Note that a session is here; return whether its person has just arrived."""
        person, arrived = self._person(user)
        self._put(person, session, _Place.HERE)
        return arrived

    def meet(self, user: User, session: str) -> bool:
        """Note that a session is on another node; return whether its person has just arrived."""
        person, arrived = self._person(user)
        self._put(person, session, _Place.ELSEWHERE)
        return arrived

    def expect(self, user: User, session: str) -> bool:
        """Note that a session may come here, or come back; return whether its person has just arrived."""
        person, arrived = self._person(user)
        if person.sessions.get(session) is not _Place.HERE:
            self._put(person, session, _Place.GRACE)
        return arrived

    def break_off(self, user_id: str, session: str) -> None:
        """Note that a session that was here ended, and may return."""
        person = self._people.get(user_id)
        if person is not None:
            self._put(person, session, _Place.GRACE)

    def leave(self, user_id: str, session: str) -> User | None:
        """Note that a session ended, wherever it was; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None:
            return None
        self._put(person, session, None)
        if person.sessions:
            return None
        del self._people[user_id]
        return person.user

    def grace_over(self, user_id: str, session: str) -> User | None:
        """Note that a session has not come back in time; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None or person.sessions.get(session) is not _Place.GRACE:
            return None
        return self.leave(user_id, session)

    def part(self, user_id: str, session: str) -> User | None:
        """Note that a session is on no other node any more; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None or person.sessions.get(session) is not _Place.ELSEWHERE:
            return None
        return self.leave(user_id, session)

    def remove(self, user_id: str) -> User | None:
        """Forget a person with all their sessions; return them, if they were here."""
        person = self._people.pop(user_id, None)
        if person is None:
            return None
        self._here -= sum(place is not _Place.ELSEWHERE for place in person.sessions.values())
        return person.user

    def _person(self, user: User) -> tuple[_Person, bool]:
        person = self._people.get(user.user_id)
        arrived = person is None
        if person is None:
            person = self._people[user.user_id] = _Person(user)
        person.user = user
        return person, arrived

    def _put(self, person: _Person, session: str, place: _Place | None) -> None:
        """Note where a session is; None: nowhere."""
        self._here -= person.sessions.pop(session, _Place.ELSEWHERE) is not _Place.ELSEWHERE
        if place is not None:
            person.sessions[session] = place
            self._here += place is not _Place.ELSEWHERE
