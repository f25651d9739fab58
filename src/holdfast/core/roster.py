"""
Who is in a room?

A person is one entry, however many sessions (tabs) they hold it with. A session that
ended uncleanly keeps its person for a grace period, so that nobody flickers through a
short reconnect; when the grace is over, the mind says `leave` again, without it.
"""

from __future__ import annotations

from itertools import islice

from holdfast.protocol.messages import User

#: `users` in `joined` and `presence` names at most this many; `roomSize` counts all.
USERS_SHOWN = 100


class _Person:
    __slots__ = ("grace", "sessions", "user")

    def __init__(self, user: User) -> None:
        self.user = user
        self.sessions: set[str] = set()  # that are here
        self.grace: set[str] = set()  # that broke off and may return


class Roster:
    """The people of one room, in the order they came."""

    __slots__ = ("_people",)

    def __init__(self) -> None:
        self._people: dict[str, _Person] = {}

    def __len__(self) -> int:
        return len(self._people)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._people

    def users(self) -> tuple[User, ...]:
        """Return everybody."""
        return tuple(person.user for person in self._people.values())

    def shown(self) -> tuple[User, ...]:
        """Return the first of them, as many as one message names."""
        return tuple(person.user for person in islice(self._people.values(), USERS_SHOWN))

    def connected(self, user_id: str) -> bool:
        """Whether a person has a session here right now, and not only a grace period."""
        person = self._people.get(user_id)
        return person is not None and bool(person.sessions)

    def enter(self, user: User, session: str) -> bool:
        """Note that a session is here; return whether its person has just arrived."""
        person = self._people.get(user.user_id)
        arrived = person is None
        if person is None:
            person = self._people[user.user_id] = _Person(user)
        person.user = user
        person.sessions.add(session)
        person.grace.discard(session)
        return arrived

    def leave(self, user_id: str, session: str, *, grace: bool) -> User | None:
        """Note that a session ended; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None:
            return None
        person.sessions.discard(session)
        if grace:
            person.grace.add(session)
        else:
            person.grace.discard(session)
        if person.sessions or person.grace:
            return None
        del self._people[user_id]
        return person.user

    def grace_over(self, user_id: str, session: str) -> User | None:
        """Note that a session has not come back in time; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None or session not in person.grace:
            return None
        return self.leave(user_id, session, grace=False)

    def remove(self, user_id: str) -> User | None:
        """Forget a person with all their sessions; return them, if they were here."""
        person = self._people.pop(user_id, None)
        return None if person is None else person.user
