"""
Who is let in now, and when is everybody else to come back?

Nobody while the hub drains or has lost its store, nobody above a limit, and of a crowd only as many as the event loop
keeps up with (`core.admission`). Who may not come in costs a handshake each time that they ask, so they ask in turn.
"""

from __future__ import annotations

from holdfast.core.admission import Admission, Returns, TurnAway
from holdfast.protocol.messages import Goodbye
from holdfast.server.hands import RESTART_SECONDS, Alarm, Hands

#: When a server that is full may have a place again, and over how long those who want one are spread. Seconds.
FULL_SECONDS, FULL_SPREAD = 1.0, 5.0
#: How many of them ask again in a second, at most: a tenth of a core.
FULL_PER_SECOND = 500


class Door:
    """The door of one Hub. `turned_away` counts who was told to come back because too many came at once."""

    def __init__(self, hands: Hands) -> None:
        self.turned_away = 0
        self._hands = hands
        self._admission = Admission()
        self._returns = Returns()  # of those whom no rate would let in
        self._alarm = Alarm(hands.loop, self._ring)

    @property
    def rate(self) -> float | None:
        """How many are let in each second now; None: everybody."""
        return self._admission.rate

    def closed(self) -> Goodbye | None:
        """Return what everybody is told while it is closed."""
        hands = self._hands
        if hands.refuses is None:
            return None
        turn = self._returns.next(hands.returns_per_second, hands.now())
        return _goodbye(hands.refuses, turn, RESTART_SECONDS, hands.spread())

    def refusal(self, *, places: bool = True) -> Goodbye | None:
        """Take in that somebody wants in (and has a place to go); return what they are told if they may not."""
        if (closed := self.closed()) is not None:
            return closed
        if not places:
            turn = self._returns.next(FULL_PER_SECOND, self._hands.now())
            return _goodbye("the server is full", turn, FULL_SECONDS, FULL_SPREAD)
        turned_away = self._admission.arrive(self._hands.now())
        self._alarm.set(self._admission.deadline())
        if turned_away is None:
            return None
        self.turned_away += 1
        return _goodbye("more come at once than the server can take in", turned_away)

    def _ring(self) -> None:
        self._admission.stand_in_line(self._hands.now())
        self._hands.spawn(self._look())

    async def _look(self) -> None:
        await self._hands.attention.turn()  # as who comes does in a crowd: how long is that for them?
        self._admission.look(self._hands.now())
        self._alarm.set(self._admission.deadline())


def _goodbye(reason: str, turn: TurnAway, after: float = 0.0, spread: float = 0.0) -> Goodbye:
    return Goodbye(reason, round(1000 * (turn.after + after)), round(1000 * (turn.spread + spread)))
