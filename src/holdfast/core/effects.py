"""
What must the hands do? The values that the server's mind returns.

An effect is carried out before the mind is told anything else, in the order given.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

from holdfast.protocol.codec import Codec, Frame
from holdfast.protocol.messages import ServerMessage, User

#: One physical link, as the mind knows it: a name to compare, nothing to call.
Connection = Hashable


class Deliver(Struct, frozen=True):
    """Write these frames, joined, to each of these connections."""

    to: tuple[Connection, ...]
    frames: tuple[Frame, ...]


class Read(Struct, frozen=True):
    """Read from the store what follows `after` in `room`, and answer with `Page`."""

    room: str
    after: int


class Close(Struct, frozen=True):
    """End this connection with this code; it is forgotten already."""

    connection: Connection
    code: int
    reason: str


class Attends(Struct, frozen=True):
    """Let the other nodes know that a session of this one is in a room."""

    room: str
    session: str
    user: User


class Departs(Struct, frozen=True):
    """… and that it is no longer."""

    room: str
    session: str


class Types(Struct, frozen=True):
    """Let the other nodes know that somebody is typing in a room, or has stopped to."""

    room: str
    session: str
    user: User
    active: bool


Effect = Deliver | Read | Close | Attends | Departs | Types


class Effects:
    """The effects of one decision, as they come together; `codec` puts messages into frames once."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._effects: list[Effect] = []

    def __bool__(self) -> bool:
        """Whether there is anything to do yet."""
        return bool(self._effects)

    def add(self, effect: Effect) -> None:
        """Do this too."""
        self._effects.append(effect)

    def say(self, connection: Connection, message: ServerMessage) -> None:
        """Tell one."""
        self._effects.append(Deliver((connection,), (self._codec.encode(message),)))

    def tell(self, to: tuple[Connection, ...], *messages: ServerMessage) -> None:
        """Tell many."""
        if to:
            self._effects.append(Deliver(to, tuple(map(self._codec.encode, messages))))

    def deliver(self, to: tuple[Connection, ...], frames: tuple[Frame, ...]) -> None:
        """Hand frames to many."""
        if to and frames:
            self._effects.append(Deliver(to, frames))

    def take(self) -> list[Effect]:
        """Return them, and begin the next decision."""
        effects, self._effects = self._effects, []
        return effects
