"""
What does a client read that has no WebSocket, and what would a WebSocket have said?

It asks what follows its cursor, as an event stream; where a stream is held back, as polls
that wait for news; where those are cut, as short ones. Whichever it is, the same rooms are
read from the same positions, and what comes is told in the words of a WebSocket, so that
whoever listens need not know.
"""

from __future__ import annotations

from enum import Enum

from msgspec import UNSET, Struct, UnsetType

from holdfast.errors import Malformed
from holdfast.protocol.cursor import MAX_ROOMS, Position, decode_cursor, decode_position, encode_cursor
from holdfast.protocol.messages import (
    Error,
    Event,
    Join,
    Joined,
    Leave,
    Left,
    Resync,
    ServerMessage,
    Sync,
    Synced,
)

#: For a stream to say its first word. A proxy that holds streams back says nothing, for ever.
STREAM_SECONDS = 3.0
#: A held poll asks to be answered by then, well before a proxy loses its patience.
HOLD_SECONDS = 15.0
#: Between two short polls; or two that were to be held, and are answered at once with what leads no further.
SHORT_SECONDS = 3.0
#: What breaks as often as this, one after the other, is not tried any more.
BREAKS = 2


class How(Enum):
    """How the server is asked."""

    STREAM = "stream"
    HELD = "held"
    SHORT = "short"


class Answer(Struct, frozen=True):
    """The answer to what was asked, or a part of it: what happened, and the cursor behind it."""

    messages: tuple[ServerMessage | Event, ...]
    cursor: str


class Barred(Struct, frozen=True):
    """What was asked is not to be had like this."""

    reason: str = "it is not to be had"


class Broken(Struct, frozen=True):
    """The answer broke off, or none came."""

    reason: str = "the answer broke off"


class Again(Struct, frozen=True):
    """See whether the server is there: ask anew."""


#: An `Error` is why one of the rooms that were asked for is refused; the others were not answered, either.
ReaderInput = Join | Leave | Sync | Answer | Error | Barred | Broken | Again


class Ask(Struct, frozen=True):
    """Ask for these rooms from this cursor on, instead of what was asked before. No rooms: ask for nothing."""

    how: How
    rooms: tuple[str, ...]
    cursor: str | None
    wait: float


class Tell(Struct, frozen=True):
    """Tell this, as a WebSocket would have."""

    message: ServerMessage | Event


class GiveUp(Struct, frozen=True):
    """The link is lost."""

    reason: str


ReaderEffect = Ask | Tell | GiveUp


class Reader:
    """The rooms that are read without a WebSocket. How it asks outlives a link; what it reads does not (`begin`)."""

    def __init__(self) -> None:
        self.how = How.STREAM
        self._breaks = 0
        self.begin()

    def begin(self) -> None:
        """Read nothing yet, on a new link."""
        self._positions: dict[str, Position | None] = {}  # None: at the head, wherever that is
        self._wanted: dict[str, type[Join] | type[Sync]] = {}  # to be answered, and not asked yet
        self._asked: dict[str, type[Join] | type[Sync]] = {}  # to be answered by what is asked now
        self._epoch = ""  # of the cursor: what stands in another one is not asked about
        self._wait = 0.0
        self._asked_at = 0.0
        self._alarm: float | None = None

    def receive(self, input: ReaderInput, now: float) -> list[ReaderEffect]:
        """Take in what is wanted, or what came; raises `Malformed` for an answer that does not say where it ends."""
        match input:
            case Join(room, _) if room not in self._positions and len(self._positions) >= MAX_ROOMS:
                return [Tell(Error(f"without a WebSocket, a client is in at most {MAX_ROOMS} rooms", "too_many", room))]
            case Sync(room, _) if room not in self._positions:
                return [Tell(Error(f"you are not in {room}; join it first", "conflict", room))]
            case Join(room, since) | Sync(room, since):
                self._positions[room] = None if since is None else decode_position(since, room)
                still = self._wanted.get(room) or self._asked.get(room)
                self._wanted[room] = Join if still is Join else type(input)  # a snapshot may overtake a join
                self._alarm = now  # with whatever else is wanted now
            case Leave(room):
                if room in self._positions:
                    self._forget(room)
                    self._alarm = now
                return [Tell(Left(room))]
            case Again():
                return self._ask(now)
            case Answer():
                return self._answered(input, now)
            case Error(room=str(room)) if room in self._positions and room not in self._wanted:
                self._forget(room)
                return [Tell(input), *self._ask(now)]
            case Error():  # of a room that was left, or is asked about anew
                return self._ask(now)
            case Barred() if self.how is How.STREAM:
                self.how = How.HELD
                return self._ask(now)
            case Barred(reason) | Broken(reason):
                self._alarm = None
                self._breaks += 1
                if self._breaks >= BREAKS:
                    self._breaks = 0
                    self.how = How.HELD if self.how is How.STREAM else How.SHORT
                return [GiveUp(reason)]
        return []

    def tick(self, now: float) -> list[ReaderEffect]:
        """Take in that time has passed."""
        if self._alarm is None or now < self._alarm:
            return []
        if self.how is How.STREAM and self._asked and not self._wanted:
            self.how = How.HELD
        return self._ask(now)

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        return self._alarm

    def _forget(self, room: str) -> None:
        """Ask about it no more."""
        for known in (self._positions, self._wanted, self._asked):
            known.pop(room, None)

    def _offsets(self) -> dict[str, int]:
        """Return how far they stand."""
        return {room: 0 if position is None else position.offset for room, position in self._positions.items()}

    def _ask(self, now: float, wait: float = 0.0) -> list[ReaderEffect]:
        self._asked |= self._wanted
        self._wanted = {}
        self._wait = wait
        self._asked_at = now
        self._alarm = now + STREAM_SECONDS if self.how is How.STREAM and self._asked else None
        known = {room: position for room, position in self._positions.items() if position is not None}
        self._epoch = next((position.epoch for position in known.values()), "")
        offsets = {room: position.offset for room, position in known.items() if position.epoch == self._epoch}
        cursor = encode_cursor(self._epoch, offsets) if offsets else None
        return [Ask(self.how, tuple(self._positions), cursor, wait)]

    def _answered(self, answer: Answer, now: float) -> list[ReaderEffect]:
        stood = self._offsets()
        gaps = {message.room: message.reason for message in answer.messages if isinstance(message, Resync)}
        asked, self._epoch = self._epoch, decode_cursor(answer.cursor).epoch
        for room, position in self._positions.items():
            if position is not None and position.epoch != self._epoch:
                gaps[room] = "epoch"
            elif position is not None and self._epoch != asked:  # it is the others' that is gone
                self._wanted.setdefault(room, self._asked.get(room, Sync))
        effects: list[ReaderEffect] = []
        for room in [room for room in self._positions if room in self._asked or room in gaps]:
            if room not in self._wanted:  # else it is asked about anew
                effects.append(Tell(self._entered(room, gaps.get(room, UNSET), answer.cursor)))
        # Who is led back and forth, or on by nothing but gaps, gets no further.
        reach = sum(max(stood[room], offset) for room, offset in self._offsets().items())
        for message in answer.messages:
            if getattr(message, "room", None) in self._wanted:
                continue
            if isinstance(message, Event) and message.id is not None and message.room in self._positions:
                position = decode_position(message.id, message.room)
                if position.epoch != self._epoch:
                    raise Malformed(f"{message.id} is in an answer that ends in another epoch: {answer.cursor}")
                self._positions[message.room] = position
            if not isinstance(message, Resync):
                effects.append(Tell(message))
        if self.how is How.STREAM or self._wait:
            self._breaks = 0
        if self.how is How.STREAM:
            self._alarm = now if self._wanted else None
        elif self._wanted:
            effects += self._ask(now)
        elif self._wait and sum(self._offsets().values()) <= reach and now < self._asked_at + SHORT_SECONDS:
            # Whatever it says, it would say it again at once. A poll of ours tells what is in the log: no broadcast
            # is lost by it.
            self._alarm = self._asked_at + SHORT_SECONDS
        elif self.how is How.HELD:
            effects += self._ask(now, HOLD_SECONDS)
        else:
            self._alarm = now + SHORT_SECONDS
        return effects

    def _entered(self, room: str, reason: str | UnsetType, head: str) -> ServerMessage:
        """Return the answer to a join or a sync, or what is told of a gap."""
        asked, since = self._asked.pop(room, None), self._positions[room]
        recovered = since is not None and reason is UNSET
        stands = since if recovered else decode_position(head, room)
        self._positions[room] = stands
        if asked is Join:
            return Joined(room, str(stands), recovered, (), 0, reason)
        return Synced(room, str(stands), 0) if isinstance(reason, UnsetType) else Resync(room, reason, str(stands))
