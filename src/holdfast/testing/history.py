"""
Was everything told once, in order, and nothing passed over in silence?

Give a `History` everything that an application was told of one room, as it is told, and a `Line`
what the server has said of it, which a client puts in order. Each raises `Violation` at the first
item that breaks a promise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from holdfast.client.room import Snapshot
from holdfast.core.replica import Resumed, Resync
from holdfast.errors import HoldfastError
from holdfast.protocol import cursor, messages
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import Event, Joined, RoomMessage

#: Why somebody may have to start afresh, beside that it was `chosen`.
REASONS = ("new", "epoch", "trimmed", "ahead")
#: Many are told of one position.
decode_position = lru_cache(1000)(cursor.decode_position)


class Violation(AssertionError):
    """A promise was broken."""


class History:
    """
    What one client was told of one room, in order.

    Who starts afresh is told why, and that must be able to be true: within one epoch it never goes back, unless the log
    has never been where the client stands (`ahead`), what follows a `trimmed` position is newer, `epoch` names another
    log, `new` is told once, and `chosen` to those who have chosen it. Of an epoch that was left nothing is told again.
    A `Snapshot` is as old as it is: what follows it is told from there.
    Whether something was trimmed, or what is told last was the last that there was, a client alone cannot know.

    Args:
        recover: How its client begins again after a reconnect, as in `holdfast.connect`.
        told: The cursor up to which it was told before.

    Attributes:
        events: All publications, each with its position.
        breaks: Every time that it was told to start afresh: why, where it stood, and at which position.
        position: Where it stands.
        ended: Why it is told nothing more: who reads was put out (`Forbidden`), or its client was closed (`Closed`).
    """

    def __init__(self, room: str, who: str = "a client", *, recover: str = "resume", told: str | None = None) -> None:
        self.room = room
        self.who = who
        self._resumes = recover == "resume"
        self.events: list[tuple[Position, Event]] = []
        self.breaks: list[tuple[str, Position | None, Position]] = []
        self.position = None if told is None else decode_position(told, room)
        self.resumed = 0
        self.ended: HoldfastError | None = None
        self._furthest = {} if self.position is None else {self.position.epoch: self.position.offset}

    @property
    def data(self) -> list[Any]:
        """What was published, without the positions."""
        return [event.data for _, event in self.events]

    def told(self, item: Any) -> None:
        """Take in the next item that `async for item in room` has yielded."""
        match item:
            case Resync(reason, at) | Snapshot(_, at, reason):
                before, self.position = self.position, decode_position(at, self.room)
                self.breaks.append((reason, before, self.position))
                if not self._may_begin(reason, before, self.position, has_state=isinstance(item, Snapshot)):
                    raise Violation(f"{self.who} stood at {before}, and is to start afresh at {at}: {reason}")
                self._stand(self.position, is_known=not goes_back(before, self.position))
            case Resumed(at):
                self.resumed += 1
                if self.position is None or at != str(self.position):
                    raise Violation(f"{self.who} stands at {self.position}, and was told that {at} is resumed")
            case Event(room) if room != self.room:
                raise Violation(f"{self.who} reads {self.room}, and was told what happens in {room}")
            case Event(id=None):
                pass  # a broadcast: not recorded, and not numbered
            case Event(id=str(id)):
                self._take(decode_position(id, self.room), item)

    def _may_begin(self, reason: str, before: Position | None, after: Position, *, has_state: bool) -> bool:
        """Whether a client may be told to start afresh for this reason, as far as it can know."""
        if goes_back(before, after) and not has_state:
            return reason == "ahead"
        if reason == "chosen":
            return before is not None and not self._resumes
        if has_state:  # whose cursor is where it was taken, and not where the server stood
            return reason in REASONS
        if before is not None and before.epoch != after.epoch:  # of several, a slow application is told the last one
            return reason in ("epoch", "trimmed", "ahead")
        return is_true(reason, before, after)

    def _stand(self, position: Position, *, is_known: bool = True) -> None:
        """Note how far it has come in an epoch; one that has never been so far comes there again."""
        epoch, offset = position
        self._furthest[epoch] = max(self._furthest.get(epoch, 0), offset) if is_known else offset

    def _take(self, position: Position, event: Event) -> None:
        before = self.position
        if before is None:
            raise Violation(f"{self.who} was told {position} before it was told where it begins")
        if position.epoch != before.epoch:
            raise Violation(f"{self.who} was told {position} after {before}, and nothing of another epoch")
        if position.offset <= max(before.offset, self._furthest[position.epoch]):
            raise Violation(f"{self.who} was told {position} again, or late, after {before}")
        if position.offset != before.offset + 1:
            raise Violation(f"{self.who} was told {position} after {before}: some are missing")
        self.position = position
        self._stand(position)
        self.events.append((position, event))


def goes_back(before: Position | None, after: Position) -> bool:
    """Whether one position comes before another one of the same log."""
    return before is not None and before.epoch == after.epoch and after.offset < before.offset


class Line:
    """
    What the server has said of one room to one client, on one link after the other.

    A client asks for what is missing, and drops what it has: so its application would never hear of a server that
    leaves something out, or says it again unasked. Nor would one that takes snapshots hear from where it was not let go
    on, and whether the reason for that was true.
    """

    def __init__(self, room: str, who: str = "a client") -> None:
        self.room = room
        self.who = who
        self._position: Position | None = None
        self._asked: set[Position] = set()  # on this link, after which what follows was asked for again
        self._since: Position | None = None  # where it stands whom the server is to let in

    def joins(self, since: str | None) -> None:
        """Take in that the client asks to be let in, and where it stands."""
        self._since = None if since is None else decode_position(since, self.room)

    def asked(self, since: str) -> None:
        """Take in that the client has asked for what follows a cursor (`sync`)."""
        self._asked.add(decode_position(since, self.room))

    def said(self, message: RoomMessage) -> None:
        """Take in the next word of the server."""
        match message:
            case Joined():
                self._asked.clear()
                self._position = decode_position(message.cursor, self.room)
                self._let_in(message)
            case messages.Resync(_, reason, at):
                before, self._position = self._position, decode_position(at, self.room)
                stands = {before, *self._asked} - {None}  # who has nothing yet is let in, and told no more
                if not any(is_true(reason, each, self._position) for each in stands):
                    raise Violation(f"{self.who} is to start afresh at {at} of {self.room}, which is not {reason}")
            case Event(id=str(id)):
                position, before = decode_position(id, self.room), self._position
                just_before = Position(position.epoch, position.offset - 1)
                if just_before != before and just_before not in self._asked:
                    raise Violation(f"{self.who} stood at {before} of {self.room}, and the server has sent {position}")
                self._position = position

    def _let_in(self, joined: Joined) -> None:
        at, since, reason = self._position, self._since, joined.reason
        assert at is not None
        if joined.recovered:
            if at != since:
                raise Violation(f"{self.who} stood at {since} of {self.room}, and the server goes on from {at}")
        elif isinstance(reason, str) if since is None else not (isinstance(reason, str) and is_true(reason, since, at)):
            raise Violation(f"{self.who} stood at {since} of {self.room}, and is let in at {at}: {reason}")


def is_true(reason: str, before: Position | None, after: Position, *, kept: int = 0) -> bool:
    """
    Whether who stood somewhere cannot simply go on, and has to start afresh at `after`, for this reason.

    So many publications at the end of a log are `kept`, and never trimmed.
    """
    if before is None:
        return reason == "new"
    match reason:
        case "epoch":
            return before.epoch != after.epoch
        case "trimmed":
            return before.epoch == after.epoch and before.offset + kept < after.offset
        case "ahead":
            return goes_back(before, after)
        case _:
            return False
