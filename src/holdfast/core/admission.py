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
#: So many newcomers in one period can be what makes it late; fewer are not to blame.
CROWD = 50
#: What becomes of the rate in a period in which the server was late, and in one in which it was not.
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
        self._admitted = 0  # in this period
        self._room = 0.0  # how many could be let in at once
        self._filled_at = 0.0
        self._slot = 0.0  # until when times have been given to those who were turned away
        self._calm_since = 0.0
        self._looks_at: float | None = None

    def receive(self, input: Arrived, now: float) -> list[TurnAway]:
        """Take in that somebody is there; whoever is not turned away is let in."""
        if self._looks_at is None:
            self._looks_at = now + PERIOD
        elif now > self._looks_at + LATE_SECONDS:
            self.tick(now)  # a crowd keeps the alarm itself from ringing
        if self.rate is not None:
            self._room = min(self.rate, self._room + self.rate * (now - self._filled_at))
            self._filled_at = now
            if self._room < 1:
                self._slot = max(self._slot, now) + 1 / (RETURNING * self.rate)
                return [TurnAway(min(self._slot - now, LONGEST_SECONDS))]
            self._room -= 1
        self._admitted += 1
        return []

    def tick(self, now: float) -> list[TurnAway]:
        """Look how late it is; nobody is turned away for it."""
        if self._looks_at is None or now < self._looks_at:
            return []
        late, admitted = now - self._looks_at, self._admitted
        self._admitted = 0
        if late <= LATE_SECONDS:
            self._on_time(now)
        elif self.rate is None and admitted >= CROWD:
            self.rate = max(SLOWEST, SLOWER * admitted / (PERIOD + late))
            self._room, self._filled_at, self._calm_since = 0.0, now, now
        elif self.rate is not None and admitted:
            self.rate = max(SLOWEST, SLOWER * self.rate)
            self._calm_since = now
        self._looks_at = now + PERIOD if admitted or self.rate is not None else None
        return []

    def deadline(self) -> float | None:
        """When `tick` is due next; None: not before somebody has arrived."""
        return self._looks_at

    def _on_time(self, now: float) -> None:
        if self.rate is not None:
            self.rate *= FASTER
            if now >= self._calm_since + CALM_SECONDS and now >= self._slot:
                self.rate = None
