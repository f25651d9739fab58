"""
How long to wait before dialing again?

Ceilings double from one second to thirty; the delay is drawn uniformly below the
ceiling ("full jitter"), so that a crowd that was cut together does not return together.
A link that was welcomed and died young twice in a row is still failing.
"""

from __future__ import annotations

from msgspec import Struct

#: Seconds; the last one repeats.
CEILINGS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: Nobody dials more often than this, whatever the dice say.
FLOOR = 0.25
#: A link that lived this long was a good one.
STABLE_AFTER = 10.0


class Delay(Struct, frozen=True):
    """The next wait: try number `attempt`, at most `ceiling` seconds, in fact `delay`."""

    attempt: int
    ceiling: float
    delay: float


class Backoff:
    """The waits of one client, from its first failure on."""

    def __init__(self, *, jitter: bool = True, stable_after: float = STABLE_AFTER) -> None:
        self._jitter = jitter
        self._stable_after = stable_after
        self._failures = 0
        self._short_lived = 0
        self._welcomed_at: float | None = None

    def welcomed(self, now: float) -> None:
        """Note that the server has said `connected`."""
        self._welcomed_at = now

    def lost(self, now: float) -> None:
        """Note that the link, or the attempt, has failed."""
        if self._welcomed_at is None:
            return
        lived = now - self._welcomed_at
        self._welcomed_at = None
        self._short_lived = 0 if lived >= self._stable_after else self._short_lived + 1
        if not self._is_failing:
            self._failures = 0

    def next(self, dice: float, advice: tuple[float, float] | None = None) -> Delay:
        """Return the next wait, as `peek` does, and count the attempt that comes after it."""
        delay = self.peek(dice, advice)
        self.tried()
        return delay

    def peek(self, dice: float, advice: tuple[float, float] | None = None) -> Delay:
        """
        Return the next wait; `dice` is uniform in [0, 1). Nothing is counted: what is planned may not come to be tried.

        `advice` is the server's word, (after, spread) in seconds, and goes before our own rule; but whoever welcomes
        and sends away, again and again, makes nobody dial more often than that.
        """
        attempt = self._failures + 1
        ceiling = CEILINGS[min(attempt, len(CEILINGS)) - 1]
        own = Delay(attempt, ceiling, max(FLOOR, ceiling * dice) if self._jitter else ceiling)
        if advice is None:
            return own
        after, spread = advice
        advised = Delay(attempt, after + spread, max(FLOOR, after + spread * dice))
        return own if self._is_failing and own.delay > advised.delay else advised

    def tried(self) -> None:
        """Count an attempt."""
        self._failures += 1

    @property
    def _is_failing(self) -> bool:
        """Whether links die young, one after the other, though there was a welcome on each."""
        return self._short_lived >= 2
