"""
What has happened? The values that the server's mind is told.

Everything that has to be awaited (who is it, may they, what does the store have) was
awaited before, so each input is decided at once.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from holdfast.core.effects import Connection
from holdfast.core.ready import Item, Span
from holdfast.protocol.codec import Frame
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import User

#: Sessions of other nodes, and whose they are.
Elsewhere = tuple[tuple[str, User], ...]


class Ending(Enum):
    """How a connection ended; only an unclean end is given grace."""

    CLEAN = "clean"  # it said goodbye
    UNCLEAN = "unclean"  # the link broke; the client may be on its way back
    DEAD = "dead"  # the heartbeat found it: it has had its time already
    MOVED = "moved"  # its session goes on at another node


class Opened(Struct, frozen=True):
    """A connection is there, and has not said who it is."""

    connection: Connection


class Greeted(Struct, frozen=True):
    """It says who it is, which is all that it had to do in time: whether it is so finds out whoever tells this."""

    connection: Connection


class Identified(Struct, frozen=True):
    """
    It has: as `user`, until `expires`; it wants to go on as the session `replaces`.

    `link` is the number of this link, if its client counts them.
    """

    connection: Connection
    session: str
    user: User
    token: str | None = None
    expires: float | None = None
    replaces: str | None = None
    link: int | None = None


class Entered(Struct, frozen=True):
    """
    It joins a room, and may. `span` is needed unless `Hub.knows(room, since)`.

    `elsewhere` are the sessions that are in the room on other nodes, if it is not known here yet.
    """

    connection: Connection
    room: str
    since: Position | None = None
    span: Span | None = None
    elsewhere: Elsewhere = ()


class Went(Struct, frozen=True):
    """It leaves a room."""

    connection: Connection
    room: str


class Asked(Struct, frozen=True):
    """It asks for what follows `since` (`sync`). `span` as in `Entered`."""

    connection: Connection
    room: str
    since: Position
    span: Span | None = None


class Typed(Struct, frozen=True):
    """It types in a room, or has stopped to."""

    connection: Connection
    room: str
    active: bool


class Announced(Struct, frozen=True):
    """A broadcast to those who are in the room now, but not to the session `but`."""

    room: str
    frame: Frame
    but: str | None = None


class Published(Struct, frozen=True):
    """News from the store: these were committed, in this order."""

    room: str
    items: tuple[Item, ...]


class Page(Struct, frozen=True):
    """The answer to `Read`: what follows `after`, or as much of it as fits a page."""

    room: str
    after: int
    items: tuple[Item, ...]


class Full(Struct, frozen=True):
    """The transport takes no more for now."""

    connection: Connection


class Drained(Struct, frozen=True):
    """The transport takes more again."""

    connection: Connection


class Settled(Struct, frozen=True):
    """All effects are carried out, and every `Full` they caused was told."""


class Listened(Struct, frozen=True):
    """Somebody follows a room without being in it: keep its newest publications ready."""

    room: str
    span: Span
    elsewhere: Elsewhere = ()


class Unlistened(Struct, frozen=True):
    """… and no longer does."""

    room: str


class Lost(Struct, frozen=True):
    """A connection is gone."""

    connection: Connection
    ending: Ending


class Expelled(Struct, frozen=True):
    """A user must leave a room, or, without one, the building."""

    user_id: str
    room: str | None = None


# What other nodes have told.


class Met(Struct, frozen=True):
    """On other nodes, these sessions came to a room, and those left it."""

    room: str
    came: Elsewhere = ()
    went: Elsewhere = ()


class Taken(Struct, frozen=True):
    """A session of this node went on at another, which has taken its places in these rooms."""

    session: str
    rooms: tuple[str, ...]


class Awaited(Struct, frozen=True):
    """A session was taken over from another node, where it was in these rooms: its client is to join them here."""

    session: str
    user: User
    rooms: tuple[str, ...]


class Departed(Struct, frozen=True):
    """That a session has left a room is written down (`Departs`), and what others had written of it before was told."""

    room: str
    session: str


class TypedElsewhere(Struct, frozen=True):
    """Somebody types in a room on another node, or has stopped to."""

    room: str
    session: str
    user: User
    active: bool


Input = (
    Opened | Greeted | Identified | Entered | Went | Asked | Typed | Announced | Published | Page | Full | Drained
    | Settled | Listened | Unlistened | Lost | Expelled | Met | Taken | Awaited | Departed
    | TypedElsewhere
)  # fmt: skip
