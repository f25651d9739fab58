"""
When does something that goes wrong count?

When it is felt, and not before. The disk may be full while nobody writes, a link silent while nobody
speaks, a clock set that nobody reads. So whatever makes a fault what it is says so, at the moment at which
it does something to somebody: the disk when it refuses a write, a link when a piece is lost on it, a process
when something of it waits, or will never run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

#: What is called whenever a fault does something to somebody.
Felt = Callable[[], None]


def unfelt() -> None:
    """Count nothing: nobody has asked how this one is felt."""


class Mishap:
    """Something that goes wrong, of some kind; `counts` has how many of each kind were felt."""

    def __init__(self, kind: str, counts: Counter[str]) -> None:
        self._kind = kind
        self._counts = counts
        self._was_felt = False

    def felt(self) -> None:
        """It has done something to somebody: from now on it counts, as one."""
        if not self._was_felt:
            self._was_felt = True
            self._counts[self._kind] += 1
