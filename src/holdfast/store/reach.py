"""
Which nodes does a carrier of calls reach?

Those that have called by it of late, for they listen there too. One that was not given it, or
is cut off from it, has to be told in another way.
"""

from __future__ import annotations

import logging
from math import inf

logger = logging.getLogger("holdfast.store")

#: Who has called by a carrier within this is reached by it; all who are at work greet more often. Seconds.
REACH_SECONDS = 13.0


class Reach:
    """The nodes that the carrier of this name reaches."""

    def __init__(self, carrier: str) -> None:
        self._carrier = carrier
        self._met: dict[str, float] = {}
        self._short_since: float | None = None  # since when it has not reached all
        self._is_said = False

    def meet(self, node: str, now: float) -> None:
        """A node has called."""
        self._met[node] = now

    def is_all(self, nodes: set[str], now: float) -> bool:
        """Whether it reaches all of these."""
        return not self._missing(nodes, now)

    def look(self, nodes: set[str], now: float) -> None:
        """Say so, once, if it does not reach all of these for so long that it is not because they come and go."""
        self._met = {node: at for node, at in self._met.items() if at > now - REACH_SECONDS}
        missing = self._missing(nodes, now)
        if not missing:
            self._short_since = None
            self._is_said = False
        elif self._short_since is None:
            self._short_since = now
        elif now > self._short_since + REACH_SECONDS and not self._is_said:
            self._is_said = True
            logger.warning(
                "%s does not reach every other server (not %d of %d): what goes by it goes by the database too",
                self._carrier,
                len(missing),
                len(nodes),
            )

    def _missing(self, nodes: set[str], now: float) -> set[str]:
        return {node for node in nodes if self._met.get(node, -inf) <= now - REACH_SECONDS}
