"""
Whose is a session that returns?

The node claims it that it returns to, and the newest claim holds it: by the number of the link, if
its client counts them, else by the database's clock. Others may still think that it is theirs, for
they have stood still, or were cut off, or write everybody down again in a database that has lost them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from holdfast.protocol.messages import User
from holdfast.store.errands import Errands
from holdfast.store.postgres_database import CLOCK, AsyncConnection

#: Claims that are remembered at least, also those of sessions that are in no room.
CLAIMS = 100_000

#: All places of a session are locked before it is decided whose it is: who waited for another claim sees what that was.
_TAKE_OVER = f"""
WITH claims AS (
  SELECT session, "user", link
    FROM unnest(%(sessions)s::text[], %(users)s::text[], %(links)s::float8[]) one(session, "user", link)
), places AS (
  SELECT room, session, "user", link, here, held, node <> %(node)s AS is_foreign
    FROM holdfast_people people JOIN claims USING (session, "user")
   ORDER BY room, session FOR UPDATE OF people
), decided AS (
  SELECT session, "user", coalesce(max(places.held) > claims.link, false) AS is_old,
         coalesce(claims.link, greatest({CLOCK}, max(places.held) + 1e-6)) AS claim
    FROM claims LEFT JOIN places USING (session, "user") GROUP BY session, "user", claims.link
), taken AS (
  UPDATE holdfast_people people
     SET node = %(node)s, held = claim, xid = pg_current_xact_id(), at = now()
    FROM places JOIN decided USING (session, "user")
   WHERE people.room = places.room AND people.session = places.session AND places.here AND NOT is_old
  RETURNING people.room, people.session, people."user", people.name, is_foreign
)
SELECT session, "user", is_old, claim, room, name, is_foreign FROM decided LEFT JOIN taken USING (session, "user")
"""  # noqa: S608 - all of it is ours


class Claim(NamedTuple):
    """What is asked for."""

    session: str
    user: str
    link: int | None  # the number of the client's link, if it counts them


class Place(NamedTuple):
    """What became of a claim, in one room."""

    session: str
    user: str
    is_old: bool  # it is refused: there is a newer one
    held: float  # by which claim the session is held now
    room: str | None  # none: it is in no room
    name: str | None
    is_foreign: bool | None  # it was another node's


class Claims:
    """
    The sessions that this node has claimed.

    `take` is told of a place that a session has here now, and returns whether that is news; `wait_for`, of places
    whose claimant has gone meanwhile. Its client may yet come.
    """

    def __init__(
        self,
        node: str,
        take: Callable[[str, str, User, bool], bool],
        wait_for: Callable[[str, tuple[str, ...]], None],
    ) -> None:
        self._node = node
        self._take = take
        self._wait_for = wait_for
        self._held: dict[tuple[str, str], float] = {}  # by session and user
        self._asked: Errands[Claim, tuple[str, ...] | None] = Errands()

    def held(self, session: str, user: str) -> float:
        """Return by which claim a session is this node's; 0: by none, it has never been elsewhere."""
        return self._held.get((session, user), 0.0)

    def add(self, claim: Claim) -> asyncio.Future[tuple[str, ...] | None]:
        """Return what will be the answer: in which rooms the session goes on here; None: there is a newer claim."""
        return self._asked.add(claim)

    def forget(self, present: set[tuple[str, str]]) -> None:
        """If there are too many, remember only the claims of these sessions and users."""
        if len(self._held) > CLAIMS:
            self._held = {whose: held for whose, held in self._held.items() if whose in present}

    def clear(self) -> None:
        """Forget all of them."""
        self._held.clear()

    async def settle(self, connection: AsyncConnection) -> None:
        """Make the claims that were asked for; an answer that was lost is asked for again, with the next connection."""
        await self._asked.run(partial(self._make, connection))

    async def _make(self, connection: AsyncConnection, claims: Sequence[Claim]) -> None:
        newest: dict[tuple[str, str], float] = {}
        for session, user, link in claims:
            newest[session, user] = max(link or inf, newest.get((session, user), 0))
        sessions, users = map(list, zip(*newest, strict=True))
        links = [None if link == inf else link for link in newest.values()]
        given = {"node": self._node, "sessions": sessions, "users": users, "links": links}
        rows = await (await connection.execute(_TAKE_OVER, given)).fetchall()
        self._answer(claims, [Place(*row) for row in rows])

    def _answer(self, claims: Sequence[Claim], places: Sequence[Place]) -> None:
        rooms: dict[tuple[str, str], list[str]] = {}
        for session, user, is_old, held, room, name, is_foreign in places:
            if is_old:
                continue
            self._held[session, user] = held
            mine = rooms.setdefault((session, user), [])
            if room is not None and self._take(room, session, User(user, name or ""), bool(is_foreign)):
                mine.append(room)
        for claim in claims:
            session, user, link = claim
            is_newest = (session, user) in rooms and (link is None or link == self._held[session, user])
            answer = tuple(rooms[session, user]) if is_newest else None
            if is_newest:
                rooms[session, user] = []  # of several that are the same, one is given them
            if not self._asked.answer(claim, answer) and answer:
                self._wait_for(session, answer)
