"""
When is a peer to be pinged, and when is it dead?

Every `interval` every connection is pinged, busy or idle. From then on it has `timeout`
to send one byte, whatever byte. It is judged only by what the server can have seen:

- While bytes that were written before the ping are still being acknowledged, the ping is
  on its way: the time runs from the last progress.
- While there is input that has not been read, the verdict waits until it has.
- A tick that comes late means that the server stood still. The machine counts in the
  time during which the server was running, so no deadline passes while it is not; and it
  ticks often enough, due or not, to know how long that was.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from msgspec import Struct

from holdfast.core.agenda import Agenda

Connection = Hashable

#: A tick this late, in seconds, is ordinary; one that is later means that the server stood still.
LATENESS = 0.1
#: There is a tick at least as often, in seconds: what is between the last one and a standstill counts as running.
CADENCE = 1.0


class Ping(Struct, frozen=True):
    """Write a ping; answer with `Pinged` if anything is before it."""

    connection: Connection


class Look(Struct, frozen=True):
    """Look at the socket, unless something has come `since`; answer with `Seen`."""

    connection: Connection
    since: float


class Dead(Struct, frozen=True):
    """Abort it: it is gone."""

    connection: Connection


class Opened(Struct, frozen=True):
    """A connection is there; `phase` in (0, 1] spreads the pings over the interval."""

    connection: Connection
    phase: float


class Ended(Struct, frozen=True):
    """A connection is gone."""

    connection: Connection


class Pinged(Struct, frozen=True):
    """
    The ping is written, behind bytes that the peer has not acknowledged.

    It ends at byte `mark` of all that was ever written, of which the peer has acknowledged `acknowledged`.
    """

    connection: Connection
    mark: int
    acknowledged: int


class Seen(Struct, frozen=True):
    """
    What the socket shows: when the last byte came (None: none ever), whether there is input to be
    read, and how many bytes the peer has acknowledged (None: unknown).
    """

    connection: Connection
    heard: float | None
    unread: bool = False
    acknowledged: int | None = None


HeartbeatInput = Opened | Ended | Pinged | Seen
HeartbeatEffect = Ping | Look | Dead


class _Beat:
    """One connection; times as the machine counts them, except `pinged`."""

    __slots__ = ("acknowledged", "deadline", "mark", "next_ping", "pinged")

    def __init__(self, next_ping: float) -> None:
        self.next_ping = next_ping
        self.pinged: float | None = None  # None: it has answered
        self.deadline = 0.0
        self.mark: int | None = None
        self.acknowledged = 0


class Heartbeat:
    """The heartbeat of all connections of a server. Seconds."""

    def __init__(self, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._beats: dict[Connection, _Beat] = {}
        self._agenda = Agenda()
        self._stalled = 0.0  # how long the server has stood still, all in all
        # Ticks are at least this far apart, so that ten thousand connections do not mean as many timers.
        self._grain = min(0.1, interval / 20, timeout / 20)
        self._cadence = min(CADENCE, timeout / 10)
        self._ticked = float("-inf")
        self._expected: float | None = None

    def receive(self, input: HeartbeatInput, now: float) -> list[HeartbeatEffect]:
        """Take in what happened."""
        match input:
            case Opened(connection, phase):
                if not self._beats:
                    self._ticked = now
                first = now - self._stalled + phase * self._interval
                beat = self._beats[connection] = _Beat(math.ceil(first / self._grain) * self._grain)
                self._agenda.set(connection, beat.next_ping)
            case Ended(connection):
                self._beats.pop(connection, None)
                self._agenda.cancel(connection)
            case Pinged(connection, mark, acknowledged):
                if (known := self._beats.get(connection)) is not None:
                    known.mark, known.acknowledged = mark, acknowledged
                    self._agenda.set(connection, now - self._stalled + self._grain)  # to see when it gets on
            case Seen(connection):
                if (known := self._beats.get(connection)) is not None and known.pinged is not None:
                    return self._judge(known, input, now)
        return []

    def tick(self, now: float) -> list[HeartbeatEffect]:
        """Say whom to ping and whom to look at."""
        if self._expected is not None and now - self._expected > LATENESS:
            self._stalled += now - self._expected
        self._ticked = now
        running = now - self._stalled
        effects: list[HeartbeatEffect] = []
        for connection in self._agenda.due(running):
            beat = self._beats[connection]
            if beat.pinged is None:
                beat.pinged = now
                beat.mark = None
                beat.deadline = running + self._timeout
                # The next of its own times, and not so long from now: whoever was late together would stay so.
                beat.next_ping += self._interval * (1 + (running - beat.next_ping) // self._interval)
                self._agenda.set(connection, beat.deadline)
                effects.append(Ping(connection))
            else:
                self._agenda.set(connection, running + self._grain)
                effects.append(Look(connection, beat.pinged))
        return effects

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        when = self._agenda.next()
        if when is None:
            self._expected = None
        else:
            due = max(when + self._stalled, self._ticked + self._grain)
            self._expected = min(due, self._ticked + self._cadence)
        return self._expected

    def _judge(self, beat: _Beat, seen: Seen, now: float) -> list[HeartbeatEffect]:
        assert beat.pinged is not None
        running = now - self._stalled
        if seen.heard is not None and seen.heard >= beat.pinged:
            beat.pinged = None
            self._agenda.set(seen.connection, max(beat.next_ping, running))
            return []
        if seen.unread:
            return []
        if beat.mark is not None and seen.acknowledged is not None:
            if seen.acknowledged >= beat.mark:
                beat.mark = None  # the ping has only now arrived there
                beat.deadline = running + self._timeout
            elif seen.acknowledged > beat.acknowledged:
                beat.acknowledged = seen.acknowledged
                beat.deadline = running + self._timeout
        if running < beat.deadline:
            return []
        del self._beats[seen.connection]
        self._agenda.cancel(seen.connection)
        return [Dead(seen.connection)]
