"""
Who is in which room, at whichever node?

Each node writes down its own people, and reads what the others have written since it read
last, as with the log. It has a lease, which it renews while it lives: when that ends, its
people have left. Whom a node has not heard from, its own heartbeat has dropped long since,
so one lease stands for all of them.

A session that returns is claimed by the node that it returns to, and the newest claim holds it:
by the number of the link, if its client counts them, else by the database's clock. Others may
still think that it is theirs, for they have stood still, or were cut off, or write everybody
down again in a database that has lost them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, TypeVar

import psycopg

from holdfast.core.inputs import Elsewhere
from holdfast.errors import HoldfastError, Invalid, Unavailable
from holdfast.protocol.messages import User
from holdfast.store.errands import Errands
from holdfast.store.postgres_database import CLOCK, NEW, AsyncConnection, Database, hang_up, since, up_to
from holdfast.store.postgres_hints import RETRY_SECONDS, Hints
from holdfast.store.store import Listener
from holdfast.store.trouble import Trouble
from holdfast.store.whereabouts import Key, Whereabouts

logger = logging.getLogger("holdfast.store")

#: A node that was killed is seen to be gone after this, and one look more. Renewed three times as often. Seconds.
LEASE_SECONDS = 12.0
RENEW_SECONDS = 4.0
#: Seconds after which is looked without a hint.
LOOK_SECONDS = 1.0
#: A database that has just come up again knows nobody; the others have so long to write their people down again.
DOUBT_SECONDS = 5.0
#: Who has left is forgotten after this; a node that has not looked for half as long reads everything anew. Seconds.
FORGET_SECONDS = 60.0
#: People that are written down with one statement.
BATCH_PEOPLE = 5_000
#: Claims that are remembered at least, also those of sessions that are in no room.
CLAIMS = 100_000
#: A node that is about to end looks so often whether others are too. Seconds.
STEP_SECONDS = 0.05
#: A node that could not look for so long does not take others for dead who may have been held up like it. Seconds.
LATE_SECONDS = LEASE_SECONDS / 2
#: Seconds for which whoever asks waits for the database.
ASK_SECONDS = 3.0

_ATTEND = """
INSERT INTO holdfast_people AS people (room, session, "user", name, held, node, here, xid, at)
SELECT one.*, %s, true, pg_current_xact_id(), now()
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::float8[]) one(room, session, "user", name, held)
 ORDER BY room, session
    ON CONFLICT (room, session) DO UPDATE
   SET "user" = excluded."user", name = excluded.name, held = excluded.held, node = excluded.node, here = true,
       xid = excluded.xid, at = now()
 WHERE people.held <= excluded.held
"""
_DEPART = """
UPDATE holdfast_people people SET here = false, xid = pg_current_xact_id(), at = now()
  FROM (SELECT * FROM unnest(%s::text[], %s::text[]) one(room, session) ORDER BY room, session) gone
 WHERE people.room = gone.room AND people.session = gone.session AND node = %s AND here
"""
_TAKE_OVER = f"""
WITH claims AS (
  SELECT session, "user", link, coalesce(link, {CLOCK}) AS claim
    FROM unnest(%(sessions)s::text[], %(users)s::text[], %(links)s::float8[]) one(session, "user", link)
), places AS (
  SELECT room, session, node AS before, claim FROM holdfast_people people JOIN claims USING (session, "user")
   WHERE here AND (link IS NULL OR held <= link) ORDER BY room, session FOR UPDATE OF people
), taken AS (
  UPDATE holdfast_people people
     SET node = %(node)s, held = greatest(claim, held), xid = pg_current_xact_id(), at = now()
    FROM places WHERE people.room = places.room AND people.session = places.session
  RETURNING people.room, people.session, "user", name, held, before
)
SELECT claims.session, claims."user", coalesce(held, claim), room, name,
       EXISTS (SELECT FROM holdfast_people people WHERE people.session = claims.session
                  AND people."user" = claims."user" AND people.held > link) AS is_old
  FROM claims LEFT JOIN taken ON taken.session = claims.session AND taken."user" = claims."user" AND before <> %(node)s
"""  # noqa: S608 - all of it is ours
_EXPEL = """
INSERT INTO holdfast_expulsion ("user", room, node)
SELECT "user", room, %s FROM unnest(%s::text[], %s::text[]) one("user", room)
"""
_MOMENT = """
SELECT pg_current_snapshot()::text,
       (SELECT greatest((SELECT xid FROM holdfast_people ORDER BY xid DESC LIMIT 1)::text::bigint,
                        (SELECT max(xid::text::bigint) FROM holdfast_expulsion))),
       (SELECT coalesce(array_agg(id), ARRAY[]::text[]) FROM holdfast_node WHERE until > now()),
       (SELECT coalesce(array_agg(id), ARRAY[]::text[]) FROM holdfast_node WHERE until > now() AND NOT ends)
"""
_CHANGED = f"""
WITH moment AS ({_MOMENT}), changed AS (
  SELECT room, session, "user", name, node, here, held FROM holdfast_people WHERE {NEW}
  UNION ALL SELECT room, NULL, "user", '', node, false, 0 FROM holdfast_expulsion WHERE {NEW}
)
SELECT moment.*, changed.* FROM moment LEFT JOIN changed ON true
"""  # noqa: S608 - all of it is ours
_IN_ROOMS = """
SELECT room, session, "user", name, node FROM holdfast_people
 WHERE room = ANY(%s) AND here AND node <> %s AND node IN (SELECT id FROM holdfast_node WHERE until > now())
 ORDER BY at
"""
_AT_NODE = "SELECT room, session FROM holdfast_people WHERE node = %s AND here"
_OF_SESSIONS = """
SELECT room, session, "user", name, node, here, held FROM holdfast_people WHERE session = ANY(%s) AND node <> %s
"""
_EXPELLED = """
SELECT "user", room FROM holdfast_expulsion WHERE node <> %s AND at > now() - make_interval(secs => %s)
"""
_RENEW = """
UPDATE holdfast_node SET until = now() + make_interval(secs => %s), ends = %s WHERE id = %s AND until > now()
"""
_ENLIST = """
INSERT INTO holdfast_node (until, ends, id) VALUES (now() + make_interval(secs => %s), %s, %s)
    ON CONFLICT (id) DO UPDATE SET until = excluded.until, ends = excluded.ends
"""
_TIDY = (
    "DELETE FROM holdfast_people WHERE at < now() - make_interval(secs => %(s)s) AND (NOT here OR "
    "node NOT IN (SELECT id FROM holdfast_node WHERE until > now() - make_interval(secs => %(s)s)))",
    "DELETE FROM holdfast_node WHERE until < now() - make_interval(secs => 2 * %(s)s)",
    "DELETE FROM holdfast_expulsion WHERE at < now() - make_interval(secs => %(s)s)",
)

#: What is raised for data that no database takes, and not because of the database.
_BAD_DATA = (psycopg.DataError, UnicodeError)

Return = tuple[str, str, int | None]  # session, user and link

K = TypeVar("K")
T = TypeVar("T")


async def _each(
    keys: Sequence[K], do: Callable[[Sequence[K]], Awaitable[None]], fail: Callable[[K, Exception], None]
) -> None:
    """Do something for all of these at once; if one of them cannot be taken, that one fails, and no other."""
    if not keys:
        return
    try:
        await do(keys)
    except _BAD_DATA as error:
        if len(keys) == 1:
            fail(keys[0], error)
        else:
            half = len(keys) // 2
            await _each(keys[:half], do, fail)
            await _each(keys[half:], do, fail)


def _refusal(error: Exception) -> Invalid:
    logger.error("the database does not take what was asked for: %s", error)
    return Invalid("this cannot be the name of a room, a session or a user")


class People:
    """Who is where, as one node knows it (see `Others`)."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._mine: dict[Key, User] = {}
        self._unwritten: dict[Key, User | None] = {}  # of mine; None: has left
        self._held: dict[tuple[str, str], float] = {}  # sessions and users, and by which claim they are this node's
        self._departed: list[Key] = []  # written down, and not told yet
        self._since = ""
        self._looked = 0.0
        self._renewed = -inf
        self._ends = False
        self._staying: set[str] = set()  # nodes that are alive, and not about to end
        self._tidied = 0.0
        self._meetings: Errands[str, None] = Errands()  # by room
        self._returns: Errands[Return, tuple[str, ...] | None] = Errands()
        self._expulsions: Errands[tuple[str, str | None], None] = Errands()  # by user and room
        self._wanted = asyncio.Event()
        self._looked_for: list[asyncio.Future[None]] = []
        self._connection: AsyncConnection | None = None  # with which it begins

    async def open(self, listener: Listener) -> None:
        """Have a lease, and know where it begins; `listener` is told of people."""
        self._listener = listener
        self._theirs = Whereabouts(listener)
        self._ends = False
        self._loop = asyncio.get_running_loop()
        self._connection = await self._dial()
        await self._look(self._connection)

    async def hang_up(self) -> None:
        """Do not begin after all."""
        await hang_up(self._connection)

    def start(self) -> None:
        """Begin to look."""
        self._hints.hinted["people"] = self._take_hint
        self._hints.hint("people", None)  # one of them may be about to end, and must know that it is not alone
        self._looking = asyncio.create_task(self._look_for_ever(self._connection))

    async def close(self) -> None:
        """End: who does not return to another node soon has left."""
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        with suppress(psycopg.Error, OSError, HoldfastError):
            async with asyncio.timeout(ASK_SECONDS), await self._database.connect_async() as connection:
                await self._write(connection)
                await connection.execute(
                    "UPDATE holdfast_node SET until = least(until, now() + make_interval(secs => %s)) WHERE id = %s",
                    (DOUBT_SECONDS, self._hints.node),
                )

    # What the hub tells and asks.

    @property
    def are_none(self) -> bool:
        """Whether there is no other node at work now, but for those that are about to end."""
        return self._staying <= {self._hints.node}

    async def withdraw(self, seconds: float) -> None:
        """Tell the others that this node is about to end; those that end too have so long to say so."""
        self._ends = True
        self._renewed = -inf
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look_again()  # what is known may be of before another one came
                while not self.are_none:
                    await asyncio.sleep(STEP_SECONDS)
                    await self._look_again()

    async def _look_again(self) -> None:
        """Wait for a look that begins now or later."""
        looked: asyncio.Future[None] = self._loop.create_future()
        self._looked_for.append(looked)
        self._wanted.set()
        await looked

    def attend(self, room: str, session: str, user: User) -> None:
        """Write down that a session of this node is in a room."""
        self._mine[room, session] = self._unwritten[room, session] = user
        self._wanted.set()

    def depart(self, room: str, session: str) -> None:
        """… and that it is no longer."""
        if self._mine.pop((room, session), None) is not None:
            self._unwritten[room, session] = None
        else:  # they went on elsewhere, or could not be written down
            self._departed.append((room, session))
        self._wanted.set()

    async def meet(self, room: str) -> None:
        """Learn who is in a room at other nodes."""
        if room not in self._theirs:
            await self._run(self._meetings.add(room))

    def known(self, room: str) -> Elsewhere:
        """Return who is in a room at other nodes."""
        return self._theirs.known(room)

    async def take_over(self, session: str, user_id: str, link: int | None = None) -> tuple[str, ...] | None:
        """Claim a user's session, which may be this node's already; raises `Invalid` or `Unavailable`."""
        claim = self._returns.add((session, user_id, link))
        try:
            return await self._run(claim)
        except (asyncio.CancelledError, Unavailable):
            if claim.done() and not claim.cancelled() and claim.exception() is None:
                self._wait_for(session, claim.result())  # it was answered just when nobody waited any more
            raise

    async def expel(self, user_id: str, room: str | None) -> None:
        """Have the other nodes put a user out."""
        await self._run(self._expulsions.add((user_id, room)))

    async def _run(self, errand: asyncio.Future[T]) -> T:
        self._wanted.set()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await errand
        except TimeoutError:
            raise Unavailable("the database does not say who is where") from None

    def say(self, word: Any) -> None:
        """Tell the other nodes something."""
        self._hints.say(word)

    def begin_anew(self) -> None:
        """The log is another: nobody is where they were."""
        self._mine.clear()
        self._unwritten.clear()
        self._held.clear()
        self._departed.clear()
        self._theirs.clear()
        self._looking.cancel()  # what it is about to hear is of before
        self._looking = asyncio.create_task(self._look_for_ever())

    # The connection, which is used for one thing after the other.

    async def _dial(self) -> AsyncConnection:
        connection = await self._database.connect_async()
        self._since = ""  # whatever was seen through the last one may be gone
        return connection

    # Looking.

    def _take_hint(self, rooms: list[str]) -> None:
        if not rooms or any(room in self._theirs for room in rooms):
            self._wanted.set()

    async def _look_for_ever(self, connection: AsyncConnection | None = None) -> None:
        trouble = Trouble("the database does not say who is where (%s)", "the database says again who is where")
        try:
            while True:
                self._wanted.clear()
                try:
                    if connection is None or connection.broken or connection.closed:
                        connection = await self._dial()  # of several hosts each has its time, also those that are dark
                    async with asyncio.timeout(2 * ASK_SECONDS):
                        await self._look(connection)
                    trouble.ends()
                except (psycopg.Error, OSError, HoldfastError) as error:  # a TimeoutError is an OSError
                    trouble.begins(error)
                    await hang_up(connection)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                except Exception:  # a mistake of ours, that must not be the end of it
                    logger.exception("who is where could not be taken in")
                    await hang_up(connection)  # half of a look may be in it
                    await asyncio.sleep(RETRY_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._wanted.wait()
        finally:
            await hang_up(connection)

    async def _look(self, connection: AsyncConnection) -> None:
        now, asked = self._loop.time(), len(self._looked_for)
        if now >= self._renewed + RENEW_SECONDS or not self._since:
            self._renewed = now
            await self._renew(connection)
        await self._write(connection)
        await self._run_errands(connection)
        self._theirs.forget(self._listener.follows)
        if not self._since or now > self._looked + FORGET_SECONDS / 2:
            await self._look_anew(connection)
        rows = await (await connection.execute(_CHANGED, since(self._since))).fetchall()
        snapshot, newest, alive, staying = rows[0][:4]
        self._staying = set(staying)
        self._hints.others = set(alive) - {self._hints.node}
        is_late = bool(self._looked) and self._loop.time() > self._looked + LATE_SECONDS
        self._take([row[4:] for row in rows if row[6] is not None], set(alive), is_late=is_late)
        departed, self._departed = self._departed, []
        for key in departed:
            self._listener.departed(*key)
        self._since = up_to(snapshot, newest)
        self._looked = now
        answered, self._looked_for = self._looked_for[:asked], self._looked_for[asked:]
        for looked in answered:
            if not looked.done():
                looked.set_result(None)
        if now > self._tidied + FORGET_SECONDS:
            self._tidied = now
            if len(self._held) > CLAIMS:
                present = {(session, user.user_id) for (_, session), user in self._mine.items()}
                self._held = {whose: claim for whose, claim in self._held.items() if whose in present}
            for statement in _TIDY:
                await connection.execute(statement, {"s": FORGET_SECONDS})

    async def _renew(self, connection: AsyncConnection) -> None:
        lease = LEASE_SECONDS, self._ends, self._hints.node
        renewed = await connection.execute(_RENEW, lease)
        if renewed.rowcount == 0:  # it has ended, or the server has lost it: all have left, as others see it
            await connection.execute(_ENLIST, lease)
            self._unwritten = {**self._mine, **{key: one for key, one in self._unwritten.items() if one is None}}
        if self._ends:
            self._hints.hint("people", None)
        self._hints.greet()

    async def _write(self, connection: AsyncConnection) -> None:
        """Write down who of this node has come and gone."""

        async def write(keys: Sequence[Key]) -> None:
            batch = [(key, self._unwritten[key]) for key in keys if key in self._unwritten]
            came = [
                (*key, user.user_id, user.name, self._held.get((key[1], user.user_id), 0.0))
                for key, user in batch
                if user is not None
            ]
            went = [key for key, user in batch if user is None]
            if came:
                await connection.execute(_ATTEND, (self._hints.node, *map(list, zip(*came, strict=True))))
            if went:
                await connection.execute(_DEPART, (*map(list, zip(*went, strict=True)), self._hints.node))
            self._departed += went
            for key, user in batch:
                if key in self._unwritten and self._unwritten[key] is user:
                    del self._unwritten[key]
            self._hints.hint("people", {room for (room, _), _ in batch})

        def drop(key: Key, error: Exception) -> None:
            logger.error("who is in room %r is not told to the other servers: %s", key[0], error)
            self._mine.pop(key, None)
            if key in self._unwritten and self._unwritten.pop(key) is None:
                self._departed.append(key)

        while self._unwritten:
            await _each(list(self._unwritten)[:BATCH_PEOPLE], write, drop)

    async def _run_errands(self, connection: AsyncConnection) -> None:
        """Do what was asked for since it was looked last."""
        node = self._hints.node

        async def meet(rooms: Sequence[str]) -> None:
            rows = await (await connection.execute(_IN_ROOMS, (list(rooms), node))).fetchall()
            people: dict[str, list[tuple[str, str, User]]] = {room: [] for room in rooms}
            for room, session, user, name, at in rows:
                people[room].append((session, at, User(user, name)))
            for room in rooms:
                self._theirs.meet(room, people[room])
                self._meetings.answer(room, None)

        async def take_over(returns: Sequence[Return]) -> None:
            newest: dict[tuple[str, str], float] = {}
            for session, user, link in returns:
                newest[session, user] = max(link or inf, newest.get((session, user), 0))
            sessions, users = map(list, zip(*newest, strict=True))
            links = [None if link == inf else link for link in newest.values()]
            given = {"node": node, "sessions": sessions, "users": users, "links": links}
            self._take_over(returns, await (await connection.execute(_TAKE_OVER, given)).fetchall())

        async def expel(expulsions: Sequence[tuple[str, str | None]]) -> None:
            await connection.execute(_EXPEL, (node, *map(list, zip(*expulsions, strict=True))))
            self._hints.hint("people", None)
            for each in expulsions:
                self._expulsions.answer(each, None)

        await _each(self._meetings.keys(), meet, lambda room, error: self._meetings.fail(room, _refusal(error)))
        await _each(self._returns.keys(), take_over, lambda key, error: self._returns.fail(key, _refusal(error)))
        await _each(self._expulsions.keys(), expel, lambda key, error: self._expulsions.fail(key, _refusal(error)))

    def _take_over(self, returns: Sequence[Return], rows: Sequence[tuple[Any, ...]]) -> None:
        """Give those who return the places that were taken for them; who has gone meanwhile may yet come."""
        places: dict[tuple[str, str], list[str]] = {}
        claims: dict[tuple[str, str], float] = {}
        for session, user, claim, room, name, is_old in rows:
            if is_old:
                continue
            claims[session, user] = self._held[session, user] = claim
            mine = places.setdefault((session, user), [])
            if room is not None:
                mine.append(room)
                self._mine[room, session] = User(user, name)
                self._theirs.take(room, session)
        self._hints.hint("people", {room for rooms in places.values() for room in rooms})
        for session, user, link in returns:
            claim = claims.get((session, user))
            is_newest = claim is not None and (link is None or link == claim)
            rooms = tuple(places.pop((session, user))) if is_newest and (session, user) in places else ()
            if not self._returns.answer((session, user, link), rooms if is_newest else None):
                self._wait_for(session, rooms)

    def _wait_for(self, session: str, rooms: tuple[str, ...] | None) -> None:
        """Whoever has claimed a session has gone meanwhile; its client may yet come."""
        if rooms:
            self._listener.awaited(session, self._mine[rooms[0], session], rooms)

    async def _look_anew(self, connection: AsyncConnection) -> None:
        """Compare everything that is known with everything that is written down."""
        missed = self._loop.time() - self._looked if self._looked else 0.0
        row = await (await connection.execute(_MOMENT)).fetchone()
        assert row is not None
        self._since = up_to(row[0], row[1])
        for user, room in await (await connection.execute(_EXPELLED, (self._hints.node, missed))).fetchall():
            self._listener.expelled(user, room)
        rows = await (await connection.execute(_IN_ROOMS, (self._theirs.rooms(), self._hints.node))).fetchall()
        written = [(room, session, node, User(user, name)) for room, session, user, name, node in rows]
        self._theirs.compare(written, self._loop.time() + DOUBT_SECONDS)
        await self._look_for_mine(connection)

    async def _look_for_mine(self, connection: AsyncConnection) -> None:
        """Give up what of this node's was taken over meanwhile, and strike out who is written down here and is not."""
        rows = await (await connection.execute(_AT_NODE, (self._hints.node,))).fetchall()
        for room, session in rows:
            if (room, session) not in self._mine:
                self._unwritten.setdefault((room, session), None)
                self._wanted.set()
        sessions = list({session for _, session in self._mine})
        self._give_up(await (await connection.execute(_OF_SESSIONS, (sessions, self._hints.node))).fetchall())

    def _give_up(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Let go of those of this node's people whom another has claimed since; the others are still this node's."""
        taken: dict[str, list[str]] = {}
        gone: list[tuple[str, str, User]] = []  # from there, too
        for room, session, user, name, node, here, held in rows:
            if (room, session) not in self._mine:
                continue
            mine = self._mine[room, session]
            if held < self._held.get((session, mine.user_id), 0.0):
                self._unwritten[room, session] = mine
                self._wanted.set()
                continue
            del self._mine[room, session]
            self._unwritten.pop((room, session), None)
            taken.setdefault(session, []).append(room)
            if here:
                self._theirs.give(room, session, node, User(user, name))
            else:
                gone.append((room, session, User(user, name)))
        for session, rooms in taken.items():
            self._listener.taken(session, tuple(rooms))
        for room, session, one in gone:
            self._listener.met(room, (), ((session, one),))

    def _take(self, rows: Iterable[tuple[Any, ...]], alive: set[str], *, is_late: bool) -> None:
        """Take in what has changed, and which nodes were alive then."""
        theirs = [row for row in rows if row[4] != self._hints.node]
        people = [row for row in theirs if row[1] is not None]
        for room, session, user, *_ in theirs:
            if session is None:
                self._listener.expelled(user, room)
        self._give_up(people)
        for room, session, user, name, node, here, _ in people:
            if (room, session) in self._mine:
                continue
            if here and (node in alive or is_late):
                self._theirs.come(room, session, node, User(user, name))
            else:
                self._theirs.go(room, session)
        now = self._loop.time()
        if is_late:
            self._theirs.doubt(alive, now + DOUBT_SECONDS)
        self._theirs.bury(alive | {self._hints.node}, now)
