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
    __slots__ = ("elsewhere", "grace", "sessions", "user")

    def __init__(self, user: User) -> None:
        self.user = user
        self.sessions: set[str] = set()  # that are here
        self.grace: set[str] = set()  # that broke off and may return
        self.elsewhere: set[str] = set()  # that are on other nodes

    @property
    def is_gone(self) -> bool:
        return not (self.sessions or self.grace or self.elsewhere)


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
        return person is not None and bool(person.sessions)

    def enter(self, user: User, session: str) -> bool:
        """Note that a session is here; return whether its person has just arrived."""
        person, arrived = self._person(user)
        self._put(person, session, person.sessions)
        return arrived

    def meet(self, user: User, session: str) -> bool:
        """Note that a session is on another node; return whether its person has just arrived."""
        person, arrived = self._person(user)
        self._put(person, session, person.elsewhere)
        return arrived

    def expect(self, user: User, session: str) -> bool:
        """Note that a session may come here, or come back; return whether its person has just arrived."""
        person, arrived = self._person(user)
        if session not in person.sessions:
            self._put(person, session, person.grace)
        return arrived

    def break_off(self, user_id: str, session: str) -> None:
        """Note that a session that was here ended, and may return."""
        person = self._people.get(user_id)
        if person is not None:
            self._put(person, session, person.grace)

    def leave(self, user_id: str, session: str) -> User | None:
        """Note that a session ended, wherever it was; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None:
            return None
        self._put(person, session, None)
        if not person.is_gone:
            return None
        del self._people[user_id]
        return person.user

    def grace_over(self, user_id: str, session: str) -> User | None:
        """Note that a session has not come back in time; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None or session not in person.grace:
            return None
        return self.leave(user_id, session)

    def part(self, user_id: str, session: str) -> User | None:
        """Note that a session is on no other node any more; return its person, if they have left with it."""
        person = self._people.get(user_id)
        if person is None or session not in person.elsewhere:
            return None
        return self.leave(user_id, session)

    def remove(self, user_id: str) -> User | None:
        """Forget a person with all their sessions; return them, if they were here."""
        person = self._people.pop(user_id, None)
        if person is None:
            return None
        self._here -= len(person.sessions) + len(person.grace)
        return person.user

    def _person(self, user: User) -> tuple[_Person, bool]:
        person = self._people.get(user.user_id)
        arrived = person is None
        if person is None:
            person = self._people[user.user_id] = _Person(user)
        person.user = user
        return person, arrived

    def _put(self, person: _Person, session: str, where: set[str] | None) -> None:
        """Have a session stand in one of its person's sets, or in none."""
        for kind in (person.sessions, person.grace):
            if session in kind:
                kind.remove(session)
                self._here -= 1
        person.elsewhere.discard(session)
        if where is not None:
            where.add(session)
            self._here += where is not person.elsewhere
