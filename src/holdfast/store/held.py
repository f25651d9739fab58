"""
Which rooms does somebody else hold, so that nothing can be published there for now?

All changes wait for one who waits, so none waits long: what cannot be had is put aside, and
tried again a little later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

#: Milliseconds that a batch waits for what somebody else holds …
PATIENCE_MS = 100
#: … and for a room that was held when it was looked at last, which is done again after so many seconds.
BRIEF_MS = 20
#: … and for whatever comes after somebody in the same batch has waited in vain: not at all (0 would be for ever).
NO_MS = 1
AGAIN_SECONDS = 0.25
#: A room in which nobody has tried to publish for so long is like any other.
FORGET_SECONDS = 60.0


class Held(Exception):
    """Nothing of the batch has happened, for these rooms are held; what publishes elsewhere can be run again."""

    def __init__(self, rooms: Collection[str]) -> None:
        super().__init__("somebody else publishes there, and does not come to an end")
        self.rooms = rooms


class HeldRooms:
    """Rooms that were held when they were looked at last."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until: dict[str, float] = {}

    def patience(self, rooms: Collection[str]) -> int:
        """Return how many milliseconds are to be waited for these rooms; `Held` if it is too early to try."""
        known = [room for room in rooms if room in self._until]
        if too_early := [room for room in known if self._now() < self._until[room]]:
            raise Held(too_early)
        return BRIEF_MS if known else PATIENCE_MS

    def hold(self, rooms: Collection[str]) -> None:
        """Somebody holds these."""
        now = self._now()
        self._until = {room: until for room, until in self._until.items() if now < until + FORGET_SECONDS}
        self._until |= dict.fromkeys(rooms, now + AGAIN_SECONDS)

    def free(self, rooms: Collection[str]) -> None:
        """Nobody holds these."""
        for room in rooms:
            self._until.pop(room, None)
