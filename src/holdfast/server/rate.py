"""May this happen now, or has it happened too often?"""

from __future__ import annotations


class Allowance:
    """A token bucket: `rate` a second on average, `burst` at once."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Use one, if there is one."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Allowances:
    """
    An allowance for each of many, who are known by a name; whoever is not heard of for a while is forgotten.

    What nobody has used for as long as it takes to fill is full, so it is the same to forget it.
    """

    __slots__ = ("_before", "_burst", "_forget_at", "_now", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._now: dict[str, Allowance] = {}  # those that were used since the last time that any were forgotten …
        self._before: dict[str, Allowance] = {}  # … and those that were before, and not since
        self._forget_at = 0.0

    def take(self, name: str, now: float) -> bool:
        """Use one of somebody's, if there is one."""
        if now >= self._forget_at:
            self._forget_at = now + self._burst / self._rate
            self._before, self._now = self._now, {}
        allowance = self._now.get(name) or self._before.get(name) or Allowance(self._rate, self._burst, now)
        self._now[name] = allowance
        return allowance.take(now)
