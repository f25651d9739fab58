"""
Was everything told once, in order, and nothing passed over in silence?

Give a `History` everything that a client was told of one room, as it is told. It raises
`Violation` at the first item that breaks a promise.
"""

from __future__ import annotations

from typing import Any

from holdfast.client.room import Snapshot
from holdfast.core.replica import Resumed, Resync
from holdfast.protocol.cursor import Position, decode_position
from holdfast.protocol.messages import Event


class Violation(AssertionError):
    """A promise was broken."""


class History:
    """
    What one client was told of one room, in order.

    Attributes:
        events: All publications, each with its position.
        breaks: Every time that it was told to start afresh: why, and at which position.
        position: Where it stands.
    """

    def __init__(self, room: str, who: str = "a client") -> None:
        self.room = room
        self.who = who
        self.events: list[tuple[Position, Event]] = []
        self.breaks: list[tuple[str, Position]] = []
        self.position: Position | None = None
        self.resumed = 0

    @property
    def data(self) -> list[Any]:
        """What was published, without the positions."""
        return [event.data for _, event in self.events]

    def told(self, item: Any) -> None:
        """Take in the next item that `async for item in room` has yielded."""
        match item:
            case Resync(reason, cursor) | Snapshot(_, cursor, reason):
                self.position = decode_position(cursor, self.room)
                self.breaks.append((reason, self.position))
            case Resumed(cursor):
                self.resumed += 1
                if self.position is None or cursor != str(self.position):
                    raise Violation(f"{self.who} stands at {self.position}, and was told that {cursor} is resumed")
            case Event(id=None):
                pass  # a broadcast: not recorded, and not numbered
            case Event(id=str(id)):
                self._take(decode_position(id, self.room), item)

    def _take(self, position: Position, event: Event) -> None:
        before = self.position
        if before is None:
            raise Violation(f"{self.who} was told {position} before it was told where it begins")
        if position.epoch != before.epoch:
            raise Violation(f"{self.who} was told {position} after {before}, and nothing of another epoch")
        if position.offset <= before.offset:
            raise Violation(f"{self.who} was told {position} again, or late, after {before}")
        if position.offset != before.offset + 1:
            raise Violation(f"{self.who} was told {position} after {before}: some are missing")
        self.position = position
        self.events.append((position, event))
