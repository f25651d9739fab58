"""
A client's copy of one room: where does it stand, and what may the application be told?

The position moves before the application is told, one publication at a time: a
publication that follows it is an event, one that it has is dropped, and one that leaves
a hole is dropped too and the hole asked for. Each join yields exactly one of `Resumed`
(nothing is missing) and `Resync` (start afresh), before anything else.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct

from holdfast.protocol import messages
from holdfast.protocol.cursor import Position, decode_position
from holdfast.protocol.messages import (
    Join,
    Joined,
    Presence,
    PresenceChanges,
    Sync,
    Synced,
    User,
    UserJoined,
    UserLeft,
)


class Event(Struct, frozen=True):
    """Something happened. `id` is its cursor if it was published, and None if it was only broadcast."""

    type: str
    data: dict[str, Any]
    id: str | None = None


class Resumed(Struct, frozen=True):
    """You are back and nothing is missing: what you missed follows as events."""

    cursor: str
    type: str = "resumed"

    @property
    def data(self) -> dict[str, Any]:
        """The same as a mapping."""
        return {"cursor": self.cursor}


class Resync(Struct, frozen=True):
    """
    What you have cannot be continued, for this reason; what follows `cursor` comes as events.

    `new`: you have nothing yet · `chosen`: recovery by snapshot was chosen · `trimmed`, `epoch`, `ahead`: see
    PROTOCOL.md.
    """

    reason: str
    cursor: str
    type: str = "resync"

    @property
    def data(self) -> dict[str, Any]:
        """The same as a mapping."""
        return {"reason": self.reason, "cursor": self.cursor}


Item = Event | Resumed | Resync


class Outcome(Struct, frozen=True):
    """What the application is told, and what the server is asked."""

    items: tuple[Item, ...] = ()
    ask: Sync | None = None


_NOTHING = Outcome()


class Replica:
    """
    One room as a client has it.

    Args:
        resume: Join from the position that it has; without it, every join starts afresh.
    """

    def __init__(self, room: str, *, resume: bool = True) -> None:
        self.room = room
        self.users: dict[str, User] = {}
        self.size = 0
        self._resume = resume
        self._position: Position | None = None
        self._joined = False
        self._syncing = False

    @property
    def cursor(self) -> str | None:
        """Where it stands, once it was joined."""
        return None if self._position is None else str(self._position)

    @property
    def is_joined(self) -> bool:
        """Whether the server has let it in."""
        return self._joined

    def join(self) -> Join:
        """Return how to (re)join."""
        self._joined = self._syncing = False
        return Join(self.room, self.cursor if self._resume else None)

    def joined(self, message: Joined) -> Outcome:
        """Take in the answer to a join."""
        self._joined = True
        self.users = {user.user_id: user for user in message.users}
        self.size = message.room_size
        known = self._position is not None
        self._position = decode_position(message.cursor, self.room)
        if message.recovered:
            return Outcome((Resumed(message.cursor),))
        reason = message.reason if message.reason is not UNSET else "chosen" if known else "new"
        return Outcome((Resync(reason, message.cursor),))

    def resync(self, message: messages.Resync) -> Outcome:
        """Take in that what it has cannot be continued."""
        self._syncing = False
        self._position = decode_position(message.cursor, self.room)
        return Outcome((Resync(message.reason, message.cursor),))

    def synced(self, message: Synced) -> Outcome:
        """Take in that what was asked for is complete."""
        self._syncing = False
        return _NOTHING

    def hold(self) -> None:
        """
        Tell the application nothing until `restart`: it is taking a snapshot.

        Until then it stands nowhere, so that a link that breaks meanwhile does not look like one to resume.
        """
        self._position = None

    def restart(self, cursor: str) -> Sync:
        """Go on from the snapshot that was taken at `cursor`."""
        self._syncing = True
        self._position = decode_position(cursor, self.room)
        return Sync(self.room, cursor)

    def event(self, type: str, id: str | None, data: dict[str, Any]) -> Outcome:
        """Take in something that happened."""
        if self._position is None or not self._joined:
            return _NOTHING
        if id is None:
            return Outcome((Event(type, data),))
        position = decode_position(id, self.room)
        if position.epoch != self._position.epoch or position.offset <= self._position.offset:
            return _NOTHING
        if position.offset > self._position.offset + 1:
            return self.ask()
        self._position = position
        return Outcome((Event(type, data, id),))

    def people(self, message: Presence | PresenceChanges | UserJoined | UserLeft) -> None:
        """Take in who is here."""
        match message:
            case Presence(_, users, size):
                self.users = {user.user_id: user for user in users}
            case PresenceChanges(_, joined, left, size):
                self.users |= {user.user_id: user for user in joined}
                for user in left:
                    self.users.pop(user.user_id, None)
            case UserJoined(_, user_id, name, size):
                self.users[user_id] = User(user_id, name)
            case UserLeft(_, user_id, _, size):
                self.users.pop(user_id, None)
        self.size = size

    def ask(self) -> Outcome:
        """Ask for what follows the position, unless that has been asked already."""
        if self._syncing or not self._joined or self._position is None:
            return _NOTHING
        self._syncing = True
        return Outcome(ask=Sync(self.room, str(self._position)))
