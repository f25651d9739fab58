"""
Which nodes are at work?

Each has a lease, which it renews while it lives, and which says whether it is about to end. Whom a
node has not heard from, its own heartbeat has dropped long since, so one lease stands for all its people.
"""

from __future__ import annotations

from math import inf

from holdfast.store.postgres_database import AsyncConnection
from holdfast.store.postgres_hints import Hints

#: A node that was killed is seen to be gone after this, and one look more. Renewed three times as often. Seconds.
LEASE_SECONDS = 12.0
RENEW_SECONDS = 4.0

_RENEW = """
UPDATE holdfast_node SET until = now() + make_interval(secs => %s), ends = %s WHERE id = %s AND until > now()
"""
_ENLIST = """
INSERT INTO holdfast_node (until, ends, id) VALUES (now() + make_interval(secs => %s), %s, %s)
    ON CONFLICT (id) DO UPDATE SET until = excluded.until, ends = excluded.ends
"""
_END = "UPDATE holdfast_node SET until = least(until, now() + make_interval(secs => %s)) WHERE id = %s"


class Lease:
    """
    This node's.

    Attributes:
        ends: Whether it is about to end.
    """

    def __init__(self, hints: Hints) -> None:
        self.ends = False
        self._hints = hints
        self._staying: set[str] = set()  # nodes that are alive, and not about to end
        self._renewed = -inf

    @property
    def is_last(self) -> bool:
        """Whether there is no other node at work, but for those that are about to end."""
        return self._staying <= {self._hints.node}

    def hasten(self) -> None:
        """It is to be renewed with the next look."""
        self._renewed = -inf

    async def renew(self, connection: AsyncConnection, now: float) -> bool:
        """Renew it, if that is due; return whether it had ended, or the server had lost it."""
        if now < self._renewed + RENEW_SECONDS:
            return False
        self._renewed = now
        lease = LEASE_SECONDS, self.ends, self._hints.node
        was_lost = (await connection.execute(_RENEW, lease)).rowcount == 0
        if was_lost:
            await connection.execute(_ENLIST, lease)
        if self.ends:
            self._hints.hint("people", None)
        self._hints.greet()
        return was_lost

    async def end(self, connection: AsyncConnection, seconds: float) -> None:
        """End it, in so many seconds."""
        await connection.execute(_END, (seconds, self._hints.node))

    def see(self, alive: list[str], staying: list[str]) -> bool:
        """Take in who is at work; return whether this node is among them."""
        self._staying = set(staying)
        self._hints.others = set(alive) - {self._hints.node}
        return self._hints.node in alive
