"""
Who is sent away, and when are they to return?

Everybody, when a server ends or has lost its store: each is told when to come back, and all of them over so long a time
that they are no storm. Where servers share a store, people move to the others before they leave this one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.core.inputs import Ending
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.messages import Goodbye
from holdfast.server.connection import Connection

if TYPE_CHECKING:
    from holdfast.server.hands import Hands

#: How many clients a restarted server takes back in a second, with their handshakes, joins and catching up …
RETURNS_PER_SECOND = 1_500
#: … and how many, where servers share a store: as a rule to one where there are people already, who are not to notice.
MOVES_PER_SECOND = 500
#: What a client that moves to another server may take, from the time when it is its turn.
MOVE_SECONDS = 2.0
#: What a server takes to end and to be there again; whoever returns sooner has come for nothing.
RESTART_SECONDS = 2.0


class Departure:
    """
    The departure of all who are at one Hub.

    Attributes:
        is_final: The Hub ends.
        reason: Why nobody is taken in now; None: everybody is.
        returns_per_second: How many of those who were sent away should return in a second.
    """

    def __init__(self, hands: Hands, *, is_alone: bool) -> None:
        self.is_final = False
        self.reason: str | None = None
        self.returns_per_second = RETURNS_PER_SECOND if is_alone else MOVES_PER_SECOND
        self._hands = hands
        # Where there are other servers, who is sent away is on the way to one of them, and has not left their rooms.
        self._ending = Ending.CLEAN if is_alone else Ending.UNCLEAN
        self._crowd = 0  # who were here when it began to refuse, and will return

    def spread(self) -> float:
        """Return over how many seconds all who are here, or were, should return: faster, and it would be a storm."""
        return max(1.0, max(self._crowd, self._here()) / self.returns_per_second)

    def say_goodbye(
        self, connection: Connection, reason: str, after: float = RESTART_SECONDS, spread: float | None = None
    ) -> None:
        """Tell a client that it will be closed for no fault of its own, and when to come back."""
        spread = self.spread() if spread is None else spread
        connection.say(Goodbye(reason, round(1000 * after), round(1000 * spread)))

    def refuse(self, reason: str) -> None:
        """Take nobody in until it is opened again; those who are here are the crowd that will return."""
        if self.reason is None:
            self._crowd = self._here()
        self.reason = reason

    def reopen(self) -> None:
        """Take everybody in again."""
        if not self.is_final:
            self.reason = None
            self._crowd = 0

    def succeed(self, other: Departure) -> None:
        """Take over whom another Hub takes in, and whom it has sent away."""
        self.is_final, self.reason, self._crowd = other.is_final, other.reason, other._crowd

    def send_away(self, reason: str, *, is_final: bool = False) -> None:
        """Send everybody away, kindly, and take nobody in until it is opened again, if it ever is."""
        self.is_final |= is_final
        self.refuse(reason)
        self._end_streams(reason)
        leaving = tuple(self._hands.connections)
        for connection in leaving:
            self.say_goodbye(connection, reason)
        self._hands.lose_all(leaving, self._ending)
        for connection in leaving:
            connection.close(CloseCode.RESTART, reason)

    async def hand_over(self, reason: str, seconds: float) -> None:
        """
        Have everybody move to the other servers, and wait as long as they do, but no longer than this.

        Who knows how to (it offered the subprotocol) goes there before it leaves here; the others are sent away.
        """
        hands = self._hands
        self.is_final = True
        self.refuse(reason)
        self._end_streams(reason)
        spread = max(0.0, min(self.spread(), seconds - MOVE_SECONDS))  # faster than a server likes, if it must be
        end = hands.now() + seconds
        until = min(hands.now() + spread + MOVE_SECONDS, end)
        for connection in tuple(hands.connections):
            if connection.knows_us:
                self.say_goodbye(connection, reason, 0.0, spread)
            else:
                self.say_goodbye(connection, reason)
                hands.end(connection, CloseCode.RESTART, reason, Ending.UNCLEAN)
        before = len(hands.connections) + 1
        while 0 < len(hands.connections) < before and until <= end:  # they still go, if not as fast as was thought
            before = len(hands.connections)
            hands.emptied.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await hands.emptied.wait()
            until += MOVE_SECONDS

    def _end_streams(self, reason: str) -> None:
        for stream in tuple(self._hands.streams):
            stream.end(reason)

    def _here(self) -> int:
        return len(self._hands.connections) + len(self._hands.streams)
