"""
Which road is dialed?

A WebSocket, unless there seems to be no way for one: a proxy refuses the upgrade, or swallows
it. Then plain HTTP is tried in the same attempt, and while that carries, a WebSocket is tried
again beside it, less and less often. A server that is down looks just like a road that is
barred, so a WebSocket that has worked before is given up less easily.
"""

from __future__ import annotations

from enum import Enum

#: WebSockets that led nowhere, one after the other, before plain HTTP is tried too, where they once worked.
PATIENCE = 3
#: From a welcome by HTTP to the first trial of a WebSocket; then twice as long each time …
TRIAL_SECONDS = 5.0
#: … but no longer than this.
LONGEST_TRIAL_SECONDS = 300.0


class Road(Enum):
    """What carries a link."""

    WEBSOCKET = "websocket"
    HTTP = "http"


class Roads:
    """The road that is dialed next, or that carries; `fallback`: there is another than the WebSocket."""

    def __init__(self, *, fallback: bool) -> None:
        self.road = Road.WEBSOCKET
        self.trial_at: float | None = None
        self._fallback = fallback
        self._proven = False  # a WebSocket has been live
        self._failures = 0  # of WebSockets since then
        self._trials = 0

    def barred(self) -> bool:
        """Take in that the road led nowhere; return whether there is another one for the same attempt."""
        if self.road is Road.HTTP:
            self.road = Road.WEBSOCKET  # with which the next attempt begins
            return False
        self._failures += 1
        if not self._fallback or self._failures < (PATIENCE if self._proven else 1):
            return False
        self.road = Road.HTTP
        return True

    def welcomed(self, now: float) -> None:
        """Take in that the road carries."""
        if self.road is Road.WEBSOCKET:
            self._proven = True
            self._failures = self._trials = 0
        else:
            self.tried(now)

    def tried(self, now: float) -> None:
        """Take in that a WebSocket is being tried, or need not be yet; the next one is later."""
        self.trial_at = now + min(TRIAL_SECONDS * 2**self._trials, LONGEST_TRIAL_SECONDS)
        self._trials += 1

    def left(self) -> None:
        """Take in that nothing carries any more."""
        self.trial_at = None

    def free(self) -> None:
        """Take in that there is a way for a WebSocket."""
        self.road = Road.WEBSOCKET
