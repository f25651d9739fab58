"""
How far was each room told?

Of a room that nothing was told of for long that is forgotten, for there may be any number of
them. It can be asked for again; all that may not be forgotten is what could still be told twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

#: Rooms that are remembered at least: what is published in others is told a little later, after a question.
ROOMS = 100_000
#: Rooms that tell whether a log is still the one that it was.
SOME = 1_000


class Told:
    """The newest publication that was told, by room."""

    def __init__(self) -> None:
        self._recent: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._before)

    def get(self, room: str) -> int | None:
        """Return the newest of a room, if it is known."""
        return self._recent.get(room, self._before.get(room))

    def update(self, offsets: Mapping[str, int]) -> None:
        """Take in what is told."""
        for room in offsets:
            self._recent.pop(room, None)  # what is told of last stands last
        self._recent.update(offsets)

    def some(self) -> list[str]:
        """Return some rooms that something was told of lately."""
        return list(islice(reversed(self._recent), SOME))

    def age(self) -> None:
        """Forget, if there are too many, what was there when it was said last that there were too many."""
        if len(self._recent) > ROOMS:
            self._before, self._recent = self._recent, {}
