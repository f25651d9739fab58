"""
How many newcomers are let in?

All of them, as long as the server keeps up. Whoever looks whether it does stands in line as they do: when that takes
long, only as many are let in as were served meanwhile, and everybody else is told when to come back, each at a time of
their own, so that a crowd returns in order. The rate is measured, not set: it falls while it takes long, rises while it
does not, and is forgotten when the crowd has gone by.
"""

from __future__ import annotations

from msgspec import Struct

#: How often somebody looks, while newcomers arrive.
PERIOD = 0.25
#: The server keeps up if nobody waits in line for longer. Nobody notices less.
LATE_SECONDS = 0.2
#: So many newcomers, served while somebody who looks waits in line, can be what they wait for; fewer are not to blame.
CROWD = 50
#: The rate, of that at which they were served; and how much it rises at once, at most, for what was measured may have
#: been too low (the loop did something else for a moment) or too high (most were turned away, which is less work).
SLOWER, FASTER = 0.7, 1.25
#: Somebody gets in each second, however late it is.
SLOWEST = 20.0
#: The rate is forgotten when the server has kept up for so long.
CALM_SECONDS = 5.0
#: The share of the rate that times are given out for, to those who are turned away; who comes for the first time is let
#: in with the rest.
RETURNING = 0.8
#: The latest that anybody is told to come back.
LONGEST_SECONDS = 60.0


class TurnAway(Struct, frozen=True):
    """Not now: come back after so many seconds, and a part of `spread`."""

    after: float
    spread: float = 0.0


class Returns:
    """
    When those who were turned away are to come back: each at a time of their own, so many each second.

    Of more than have a time within `LONGEST_SECONDS` the rest come at any time in the later half of it.
    """

    def __init__(self) -> None:
        self._given = 0.0  # times that have not come …
        self._reckoned_at = 0.0  # … then

    def next(self, rate: float, now: float) -> TurnAway:
        """Give somebody the first time that nobody has."""
        given = min(self._given, LONGEST_SECONDS * rate)  # nobody has a time beyond that
        self._given = max(0.0, given - rate * (now - self._reckoned_at)) + 1
        self._reckoned_at = now
        after = self._given / rate
        return TurnAway(after) if after <= LONGEST_SECONDS else TurnAway(LONGEST_SECONDS / 2, LONGEST_SECONDS / 2)


class Admission:
    """How many of those who come are let in. `rate` is how many each second; None: everybody."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._allowance = 0.0  # how many could be let in at once …
        self._reckoned_at = 0.0  # … then
        self._returns = Returns()
        self._calm_since = 0.0
        self._looks_at: float | None = None
        self._in_line_since: float | None = None  # whoever looks
        self._served = 0  # let in or not, who was work too, …
        self._served_since = 0.0  # … while somebody stood in line

    def arrive(self, now: float) -> TurnAway | None:
        """Take in that somebody is there; whoever is not turned away is let in."""
        if self._in_line_since is None:
            self._looks_at = now + PERIOD if self._looks_at is None else self._looks_at
        elif now > self._in_line_since + LATE_SECONDS:
            self._late(now)
        self._served += 1
        if self.rate is None:
            return None
        self._allowance = min(self.rate, self._allowance + self.rate * (now - self._reckoned_at))
        self._reckoned_at = now
        if self._allowance >= 1:
            self._allowance -= 1
            return None
        return self._returns.next(RETURNING * self.rate, now)

    def deadline(self) -> float | None:
        """When somebody is to look next, by standing in line; None: not before somebody has arrived, or they do so."""
        return self._looks_at

    def stand_in_line(self, now: float) -> None:
        """Somebody stands in line, to look: perhaps too late, for the server stood still, but for that nobody can."""
        self._looks_at = None
        self._in_line_since = self._served_since = now
        self._served = 0

    def look(self, now: float) -> None:
        """It is the turn of whoever stood in line."""
        assert self._in_line_since is not None
        if now > self._in_line_since + LATE_SECONDS:
            self._late(now)
        elif self.rate is not None:
            self.rate = self.rate * FASTER if now < self._calm_since + CALM_SECONDS else None
        self._looks_at = now + PERIOD if self._served or self.rate is not None else None
        self._in_line_since = None

    def _late(self, now: float) -> None:
        self._calm_since = now
        if self._served < CROWD:
            return
        rate = max(SLOWEST, SLOWER * self._served / (now - self._served_since))
        if self.rate is None:
            self.rate, self._allowance, self._reckoned_at = rate, 0.0, now
        else:
            self.rate = min(FASTER * self.rate, rate)
        self._served, self._served_since = 0, now
