"""
Who is let in now, and when is everybody else to come back?

Nobody while the hub drains or has lost its store, nobody above a limit, and of a crowd only as many as the event loop
keeps up with (`core.admission`). Who may not come in costs a handshake each time that they ask, so they ask in turn.
"""

from __future__ import annotations

import random

from holdfast.core.admission import Admission, Returns, TurnAway
from holdfast.protocol.messages import Goodbye
from holdfast.server.departure import RESTART_SECONDS
from holdfast.server.hands import Alarm, Hands

#: When a server that is full may have a place again, and over how long those who want one are spread. Seconds.
FULL_SECONDS, FULL_SPREAD = 1.0, 5.0
#: How many of them ask again in a second, as long as there are fewer than 30,000: a tenth of a core.
FULL_PER_SECOND = 500
#: Of whoever asks in no turn.
NO_TURN = TurnAway(0.0)


class Door:
    """The door of one Hub. `turned_away` counts who was told to come back because too many came at once."""

    def __init__(self, hands: Hands) -> None:
        self.turned_away = 0
        self._hands = hands
        self._departure = hands.departure
        self._admission = Admission()
        self._sent_away, self._without_place = Returns(), Returns()  # of those whom no rate would let in
        self._alarm = Alarm(hands.loop, self._ring)
        self._is_closed = False

    @property
    def rate(self) -> float | None:
        """How many are let in each second now; None: everybody."""
        return self._admission.rate

    def closed(self) -> Goodbye | None:
        """Return what everybody is told while it is closed."""
        departure = self._departure
        return None if departure.reason is None else _goodbye(departure.reason, RESTART_SECONDS, departure.spread())

    def full(self, reason: str) -> Goodbye:
        """Take in that somebody wants in who has no place to go; return what they are told."""
        return _goodbye(reason, FULL_SECONDS, FULL_SPREAD, self._without_place.next(FULL_PER_SECOND, self._hands.now()))

    def refusal(self, full: str | None = None) -> Goodbye | None:
        """Take in that somebody wants in, or why they have no place; return what they are told if they may not."""
        departure = self._departure
        if departure.reason is not None:
            turn = self._sent_away.next(departure.returns_per_second, self._hands.now())
            return _goodbye(departure.reason, RESTART_SECONDS, departure.spread(), turn)
        if full is not None:
            return self.full(full)
        turned_away = self._admission.arrive(self._hands.now())
        self._alarm.set(self._admission.deadline())
        if turned_away is None:
            return None
        self.turned_away += 1
        return _goodbye("more come at once than the server can take in", turned_away.after, turned_away.spread)

    def close(self) -> None:
        """Nobody is looked after any more."""
        self._is_closed = True
        self._alarm.set(None)

    def _ring(self) -> None:
        self._admission.stand_in_line(self._hands.now())
        self._hands.spawn(self._look())

    async def _look(self) -> None:
        await self._hands.attention.turn()  # as who comes does in a crowd: how long is that for them?
        self._admission.look(self._hands.now())
        self._alarm.set(None if self._is_closed else self._admission.deadline())


def drawn(goodbye: Goodbye) -> float:
    """Return after how many seconds somebody is to come back who draws no time of their own, as by HTTP."""
    return (goodbye.after_ms + random.uniform(0, goodbye.spread_ms)) / 1000


def _goodbye(reason: str, after: float, spread: float, turn: TurnAway = NO_TURN) -> Goodbye:
    return Goodbye(reason, round(1000 * (after + turn.after)), round(1000 * (spread + turn.spread)))
