"""
What is due, and when is the next thing due?

A page for each time, with the keys that are due then, and a heap of times: many connections
are due at once, and cost one time. Where a key stood before it was moved or cancelled, it is
passed over when that comes up, or forgotten when there is more of that than of what is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator


class Agenda:
    """Appointments by key."""

    def __init__(self) -> None:
        self._heap: list[float] = []  # the times of the pages
        self._pages: dict[float, list[Hashable]] = {}
        self._when: dict[Hashable, float] = {}
        self._dead = 0  # so many entries in the pages are passed over

    def __len__(self) -> int:
        return len(self._when)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._when

    def set(self, key: Hashable, when: float) -> None:
        """Make an appointment, or move it."""
        self.cancel(key)
        self._when[key] = when
        self._enter(key, when)
        if self._dead > len(self._when) + 64:
            self._heap, self._pages, self._dead = [], {}, 0
            for each, at in self._when.items():
                self._enter(each, at)

    def cancel(self, key: Hashable) -> None:
        """Call it off, if there is one."""
        if self._when.pop(key, None) is not None:
            self._dead += 1

    def due(self, now: float) -> Iterator[Hashable]:
        """Take out every key whose time has come, earliest first; of equal times, as a rule, the first that was set."""
        while (when := self.next()) is not None and when <= now:
            for key in self._pages[when]:
                if self._when.get(key) == when:
                    self.cancel(key)
                    yield key

    def next(self) -> float | None:
        """Return when the next appointment is."""
        while self._heap:
            when = self._heap[0]
            page = self._pages[when]
            while page and self._when.get(page[-1]) != when:
                page.pop()
                self._dead -= 1
            if page:
                return when
            heapq.heappop(self._heap)
            del self._pages[when]
        return None

    def _enter(self, key: Hashable, when: float) -> None:
        page = self._pages.get(when)
        if page is None:
            self._pages[when] = [key]
            heapq.heappush(self._heap, when)
        else:
            page.append(key)
