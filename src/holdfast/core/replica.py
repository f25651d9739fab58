"""
A client's copy of one room: where does it stand, and what may the application be told?

The position moves before the application is told, one publication at a time: a
publication that follows it is an event, one that it has is dropped, and one that leaves
a hole is dropped too and the hole asked for. What is dropped because the application is
slow is asked for when it goes on. Each join yields exactly one of `Resumed`
(nothing is missing) and `Resync` (start afresh), before anything else; of those that a
slow application has not been told, only the last one.

What a server says that cannot be is `Malformed`, and asks for nothing: it would be asked for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET, Struct, to_builtins

from holdfast.core.roster import USERS_SHOWN
from holdfast.errors import Malformed
from holdfast.protocol import messages
from holdfast.protocol.cursor import Position, decode_position
from holdfast.protocol.messages import (
    Event,
    Join,
    Joined,
    Left,
    Presence,
    PresenceChanges,
    RoomMessage,
    Sync,
    Synced,
    User,
    UserJoined,
    UserLeft,
    UserStoppedTyping,
    UserTyping,
)


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

    Attributes:
        users: Who is here, as far as they are named (100 of a crowd), by id; `size` is how many.
        typing: Who of them is typing.
    """

    def __init__(self, room: str, *, resume: bool = True) -> None:
        self.room = room
        self.users: dict[str, User] = {}
        self.typing: dict[str, User] = {}
        self.size = 0
        self._resume = resume
        self._position: Position | None = None
        self._joined = False
        self._syncing = False
        self._behind_at: Position | None = None  # where it was asked for what follows, and must have it by the answer
        self._is_stuck = False
        self._paused = False
        # What the application was not told, for it takes no more:
        self._untold: Resumed | Resync | None = None
        self._people_changed = False

    @property
    def cursor(self) -> str | None:
        """Where it stands, once it was joined."""
        return None if self._position is None else str(self._position)

    @property
    def is_joined(self) -> bool:
        """Whether the server has let it in."""
        return self._joined

    @property
    def is_stuck(self) -> bool:
        """Whether nothing has followed the last snapshot, on this link: another one may come to nothing as well."""
        return self._is_stuck

    def join(self) -> Join:
        """Return how to (re)join."""
        self._joined = self._syncing = self._is_stuck = False
        self._behind_at = None
        return Join(self.room, self.cursor if self._resume else None)

    def hold(self) -> None:
        """
        Tell no event until `restart`: the application is taking a snapshot.

        Until then it stands nowhere, so that a link that breaks meanwhile does not look like one to resume.
        """
        self._position = self._behind_at = None

    def restart(self, cursor: str) -> Sync:
        """Go on from the snapshot that was taken at `cursor`."""
        self._position = decode_position(cursor, self.room)
        self._syncing = self._is_stuck = True
        return Sync(self.room, cursor)

    def pause(self) -> None:
        """
        Leave publications where they are, in the server's log: the application takes no more for now.

        Broadcasts are gone, as for those who are not here; of the people, it is told afterwards who is here.
        """
        self._paused = True
        self._behind_at = None

    def resume(self) -> Outcome:
        """Ask for what was left there."""
        if not self._paused:
            return _NOTHING
        self._paused = False
        items: tuple[Item, ...] = () if self._untold is None else (self._untold,)
        if self._people_changed:
            items += (_as_event(Presence(self.room, tuple(self.users.values()), self.size)),)
        self._untold, self._people_changed = None, False
        return Outcome(items, self._ask().ask)

    def receive(self, message: RoomMessage) -> Outcome:
        """Take in what the server says of this room."""
        match message:
            case Joined():
                return self._enter(message)
            case messages.Resync(_, reason, cursor):
                self._syncing = False
                if self._position is None:
                    return _NOTHING  # it is about to start afresh
                self._position = decode_position(cursor, self.room)
                return self._start(Resync(reason, cursor))
            case Synced(_, cursor, _):
                self._syncing = False
                return self._ask_on() if self._is_behind(cursor) else _NOTHING
            case Event():
                return self._follow(message)
            case Left():  # not the answer to our own: who leaves has no copy any more
                pass
            case UserTyping(_, user_id, name):
                _meet(self.typing, [User(user_id, name)])
            case UserStoppedTyping(_, user_id, _):
                self.typing.pop(user_id, None)
            case _:
                self._people(message)
        if self._paused:
            self._people_changed = True
            return _NOTHING
        return Outcome((_as_event(message),)) if self._joined else _NOTHING

    def _enter(self, message: Joined) -> Outcome:
        """Take in the answer to a join."""
        if self._joined:
            raise Malformed("joined: nobody has asked to join")
        position, known = decode_position(message.cursor, self.room), self._position is not None
        if message.recovered and position != self._position:
            raise Malformed("joined: it does not go on from where was asked")  # what is between would be missed
        self._joined = True
        self._position = position
        self.users = {}
        _meet(self.users, message.users)
        self.size = message.room_size
        self.typing = {}
        if message.recovered:
            return self._start(Resumed(message.cursor))
        reason = message.reason if message.reason is not UNSET else "chosen" if known else "new"
        return self._start(Resync(reason, message.cursor))

    def _start(self, item: Resumed | Resync) -> Outcome:
        """Tell how it goes on; while it is paused, note that: nothing is missing only from where one has been told."""
        if not self._paused:
            return Outcome((item,))
        if not (isinstance(item, Resumed) and isinstance(self._untold, Resync)):
            self._untold = item
        return _NOTHING

    def _follow(self, event: Event) -> Outcome:
        """Tell what follows the position, drop what it has, ask for what is missing."""
        if self._position is None or not self._joined:
            return _NOTHING
        if self._paused:
            return _NOTHING
        if event.id is None:
            return Outcome((event,))
        position = decode_position(event.id, self.room)
        if position.epoch != self._position.epoch or position.offset <= self._position.offset:
            return _NOTHING
        if position.offset > self._position.offset + 1:
            return _NOTHING if self._syncing else self._ask_on()
        self._position = position
        self._is_stuck = False
        return Outcome((event,))

    def _is_behind(self, cursor: str) -> bool:
        if self._paused or not self._joined or self._position is None:
            return False
        there = decode_position(cursor, self.room)
        return there.epoch == self._position.epoch and there.offset > self._position.offset

    def _ask_on(self) -> Outcome:
        """Ask for the rest; who was asked for it from here on, and has answered, has sent it."""
        if self._behind_at == self._position:
            raise Malformed("there is more than what came, and nothing has come since that was asked for")
        self._behind_at = self._position
        return self._ask()

    def _ask(self) -> Outcome:
        """Ask for what follows the position, unless that has been asked already."""
        if self._syncing or not self._joined or self._position is None:
            return _NOTHING
        self._syncing = True
        return Outcome(ask=Sync(self.room, str(self._position)))

    def _people(self, message: Presence | PresenceChanges | UserJoined | UserLeft) -> None:
        """Take in who is here."""
        came: tuple[User, ...] = ()
        went: tuple[User, ...] = ()
        match message:
            case Presence(_, came, size):
                self.users = {}
            case PresenceChanges(_, came, went, size):
                pass
            case UserJoined(_, user_id, name, size):
                came = (User(user_id, name),)
            case UserLeft(_, user_id, name, size):
                went = (User(user_id, name),)
        for user in went:
            self.users.pop(user.user_id, None)
            self.typing.pop(user.user_id, None)
        _meet(self.users, came)
        self.size = size


def _meet(known: dict[str, User], came: Iterable[User]) -> None:
    """Note who has come: as many as are ever named at once."""
    for user in came:
        if user.user_id in known or len(known) < USERS_SHOWN:
            known[user.user_id] = user


def _as_event(message: RoomMessage) -> Event:
    """Return what the server says of the people of a room as the application is told it."""
    fields = to_builtins(message)
    return Event(fields.pop("room"), fields.pop("type"), fields)
