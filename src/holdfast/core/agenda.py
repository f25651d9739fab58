"""
What is due, and when is the next thing due?

A heap of (time, key) in which a key stands once: setting it again moves it. Moved and
cancelled entries are dropped when they come up, so both cost nothing but a dict lookup.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from itertools import count


class Agenda:
    """Appointments by key."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._when: dict[Hashable, float] = {}
        self._order = count()  # equal times come up in the order they were set; keys are never compared

    def __len__(self) -> int:
        return len(self._when)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._when

    def set(self, key: Hashable, when: float) -> None:
        """Make an appointment, or move it."""
        self._when[key] = when
        heapq.heappush(self._heap, (when, next(self._order), key))
        if len(self._heap) > 2 * len(self._when) + 64:
            self._heap = [(when, next(self._order), key) for key, when in self._when.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: Hashable) -> None:
        """Call it off, if there is one."""
        self._when.pop(key, None)

    def due(self, now: float) -> Iterator[Hashable]:
        """Take out every key whose time has come, earliest first."""
        while (when := self.next()) is not None and when <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._when[key]
            yield key

    def next(self) -> float | None:
        """Return when the next appointment is."""
        while self._heap:
            when, _, key = self._heap[0]
            if self._when.get(key) == when:
                return when
            heapq.heappop(self._heap)
        return None
