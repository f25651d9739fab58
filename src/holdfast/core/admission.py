"""
How many newcomers are let in?

All of them, as long as the server keeps up. When it falls behind because of them, only as many
as it has been seen to take in: everybody else is told when to come back, each at a time of
their own, so that a crowd returns in order. The rate is measured, not set: it falls while the
server is late, rises while it is not, and is forgotten when the crowd has gone by.
"""

from __future__ import annotations

from msgspec import Struct

#: How often it looks how late the server is, while somebody comes.
PERIOD = 0.25
#: The server keeps up if what it should do now is done no later than this. Nobody notices less.
LATE_SECONDS = 0.2
#: So many newcomers, since it was late, can be what makes it so; fewer are not to blame.
CROWD = 50
#: The rate, of that at which they came while it was late; and what becomes of it in a period in which it was not.
SLOWER, FASTER = 0.7, 1.25
#: Somebody gets in each second, however late it is.
SLOWEST = 20.0
#: The rate is forgotten when the server has kept up for so long, and everybody was to be back by then.
CALM_SECONDS = 5.0
#: The share of the rate that is given to those who were turned away; the rest is for who comes for the first time.
RETURNING = 0.8
#: The latest that anybody is told to come back.
LONGEST_SECONDS = 60.0


class Arrived(Struct, frozen=True):
    """Somebody new is there."""


class TurnAway(Struct, frozen=True):
    """Not now: come back after so many seconds."""

    after: float


class Admission:
    """The door of one server. `rate` is how many are let in each second; None: everybody."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._arrived = 0  # since it was not late; also those who were turned away, who are work, too
        self._counts_since = 0.0
        self._room = 0.0  # how many could be let in at once
        self._filled_at = 0.0
        self._slot = 0.0  # until when times have been given to those who were turned away
        self._calm_since = 0.0
        self._looks_at: float | None = None

    def receive(self, input: Arrived, now: float) -> list[TurnAway]:
        """Take in that somebody is there; whoever is not turned away is let in."""
        if self._looks_at is None:
            self._looks_at = now + PERIOD
            self._count_anew(now)
        elif now > self._looks_at + LATE_SECONDS:
            self.tick(now)  # a crowd keeps the alarm itself from ringing
        self._arrived += 1
        if self.rate is not None:
            self._room = min(self.rate, self._room + self.rate * (now - self._filled_at))
            self._filled_at = now
            if self._room < 1:
                self._slot = max(self._slot, now) + 1 / (RETURNING * self.rate)
                return [TurnAway(min(self._slot - now, LONGEST_SECONDS))]
            self._room -= 1
        return []

    def tick(self, now: float) -> list[TurnAway]:
        """Look how late it is; nobody is turned away for it."""
        if self._looks_at is None or now < self._looks_at:
            return []
        arrived = self._arrived
        if now - self._looks_at > LATE_SECONDS:
            self._too_late(now)
        else:
            self._on_time(now)
        self._looks_at = now + PERIOD if arrived or self.rate is not None else None
        return []

    def deadline(self) -> float | None:
        """When `tick` is due next; None: not before somebody has arrived."""
        return self._looks_at

    def _too_late(self, now: float) -> None:
        self._calm_since = now
        if self._arrived < CROWD:
            return
        rate = max(SLOWEST, SLOWER * self._arrived / (now - self._counts_since))
        if self.rate is None:
            self.rate, self._room, self._filled_at = rate, 0.0, now
        else:
            self.rate = min(self.rate, rate)
        self._count_anew(now)

    def _on_time(self, now: float) -> None:
        if self.rate is not None:
            self.rate *= FASTER
            if now >= self._calm_since + CALM_SECONDS and now >= self._slot:
                self.rate = None
        self._count_anew(now)

    def _count_anew(self, now: float) -> None:
        self._arrived, self._counts_since = 0, now
