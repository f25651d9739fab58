"""
Who is in which room, at whichever node?

Each node writes down its own people, and reads what the others have written since it read
last, as with the log. When a node's lease has ended, its people have left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf
from typing import Any, NamedTuple, TypeVar

import psycopg

from holdfast.core.inputs import Elsewhere
from holdfast.errors import HoldfastError, Unavailable
from holdfast.protocol.messages import User
from holdfast.store.errands import Errands, at_once
from holdfast.store.postgres_claims import Claim, Claims
from holdfast.store.postgres_database import NEW, AsyncConnection, Database, hang_up, since, up_to
from holdfast.store.postgres_hints import RETRY_SECONDS, Hints
from holdfast.store.postgres_lease import LEASE_SECONDS, Lease
from holdfast.store.store import Listener
from holdfast.store.trouble import Trouble
from holdfast.store.whereabouts import Key, Whereabouts

logger = logging.getLogger("holdfast.store")

#: Seconds after which is looked without a hint.
LOOK_SECONDS = 1.0
#: A database that has just come up again knows nobody; the others have so long to write their people down again.
DOUBT_SECONDS = 5.0
#: Who has left is forgotten after this; a node that has not looked for half as long reads everything anew. Seconds.
FORGET_SECONDS = 60.0
#: People that are written down with one statement.
BATCH_PEOPLE = 5_000
#: A node that is about to end looks so often whether others are too. Seconds.
STEP_SECONDS = 0.05
#: A node that could not look for so long does not take others for dead who may have been held up like it. Seconds.
LATE_SECONDS = LEASE_SECONDS / 2
#: Seconds for which whoever asks waits for the database.
ASK_SECONDS = 3.0

# Rows are locked in the order of their key, whoever locks several.
_ATTEND = """
INSERT INTO holdfast_people AS people (room, session, "user", name, held, node, here, xid, at)
SELECT one.*, %s, true, pg_current_xact_id(), now()
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::float8[]) one(room, session, "user", name, held)
 ORDER BY room COLLATE "C", session COLLATE "C"
    ON CONFLICT (room, session) DO UPDATE
   SET "user" = excluded."user", name = excluded.name, held = excluded.held, node = excluded.node, here = true,
       xid = excluded.xid, at = now()
 WHERE people.held <= excluded.held
"""
_DEPART = """
WITH gone AS (
  SELECT room, session FROM holdfast_people people
    JOIN unnest(%s::text[], %s::text[]) one(room, session) USING (room, session)
   ORDER BY room, session FOR UPDATE OF people
)
UPDATE holdfast_people people SET here = false, xid = pg_current_xact_id(), at = now()
  FROM gone WHERE people.room = gone.room AND people.session = gone.session AND node = %s AND here
"""
_EXPEL = """
INSERT INTO holdfast_expulsion (id, "user", room)
SELECT id, "user", room FROM unnest(%s::text[], %s::text[], %s::text[]) one(id, "user", room)
 ORDER BY id ON CONFLICT DO NOTHING
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
  SELECT room, session, "user", name, node, here, held, NULL::text FROM holdfast_people WHERE {NEW}
  UNION ALL SELECT room, NULL, "user", '', '', false, 0, id FROM holdfast_expulsion WHERE {NEW}
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
_EXPELLED = 'SELECT id, "user", room FROM holdfast_expulsion'
_TIDY = (
    "DELETE FROM holdfast_people WHERE (room, session) IN (SELECT room, session FROM holdfast_people "
    "WHERE at < now() - make_interval(secs => %(s)s) AND (NOT here OR "
    "node NOT IN (SELECT id FROM holdfast_node WHERE until > now() - make_interval(secs => %(s)s))) "
    "ORDER BY room, session FOR UPDATE SKIP LOCKED)",
    "DELETE FROM holdfast_node WHERE until < now() - make_interval(secs => 2 * %(s)s)",
    "DELETE FROM holdfast_expulsion WHERE at < now() - make_interval(secs => %(s)s)",
)

T = TypeVar("T")


class Line(NamedTuple):
    """What a node has written down."""

    room: str
    session: str
    user: str
    name: str
    node: str
    here: bool
    held: float
    expulsion: str | None  # not None: the user was asked to leave the room, or every one


class Expulsion(NamedTuple):
    """Somebody is to leave a room, or every one."""

    id: str
    user: str
    room: str | None


class People:
    """Who is where, as one node knows it (see `Others`)."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._mine: dict[Key, User] = {}
        self._unwritten: dict[Key, User | None] = {}  # of mine; None: has left
        self._departed: list[Key] = []  # written down, and not told yet
        self._heeded: dict[str, float] = {}  # expulsions, and when they were heard of
        self._since = ""
        self._looked = 0.0
        self._forgot = -inf
        self._tidied = 0.0
        self._lease = Lease(hints)
        self._claims = Claims(hints.node, self._take_place, self._wait_for)
        self._meetings: Errands[str, None] = Errands()  # by room
        self._expulsions: Errands[Expulsion, None] = Errands()
        self._numbers = count()  # of expulsions that were asked of this node
        self._wanted = asyncio.Event()
        self._looked_for: list[asyncio.Future[None]] = []
        self._connection: AsyncConnection | None = None  # with which it begins
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, listener: Listener) -> None:
        """Have a lease, and know where it begins; `listener` is told of people."""
        self._listener = listener
        self._theirs = Whereabouts(listener)
        self._lease.ends = False
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
        await asyncio.gather(self._looking, *self._ending, return_exceptions=True)
        await hang_up(self._connection)  # it may have been cancelled before it began
        with suppress(psycopg.Error, OSError, HoldfastError):
            async with asyncio.timeout(ASK_SECONDS), await self._database.connect_async() as connection:
                await self._write(connection)
                await self._lease.end(connection, DOUBT_SECONDS)

    # What the hub tells and asks.

    @property
    def are_none(self) -> bool:
        """Whether there is no other node at work now, but for those that are about to end."""
        return self._lease.is_last

    async def withdraw(self, seconds: float) -> None:
        """Tell the others that this node is about to end; those that end too have so long to say so."""
        self._lease.ends = True
        self._lease.hasten()
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
        self._theirs.take(room, session)
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
        claim = self._claims.add(Claim(session, user_id, link))
        try:
            return await self._run(claim)
        except (asyncio.CancelledError, Unavailable):
            if claim.done() and not claim.cancelled() and claim.exception() is None:
                self._wait_for(session, claim.result() or ())  # it was answered just when nobody waited any more
            raise

    async def expel(self, user_id: str, room: str | None) -> None:
        """Have every node put a user out, this one when it is written down; raises `Unavailable` or `Invalid`."""
        await self._run(self._expulsions.add(Expulsion(f"{self._hints.node}-{next(self._numbers)}", user_id, room)))

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
        self._claims.clear()
        self._departed.clear()
        self._theirs.clear()
        self._looking.cancel()  # what it is about to hear is of before
        self._ending.add(self._looking)  # it may have to wait for a connection, to hang it up
        self._looking.add_done_callback(self._ending.discard)
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
        await self._say_what_is_new(connection, now)
        if not self._since or now > self._looked + FORGET_SECONDS / 2:
            await self._look_anew(connection)
        if not await self._hear_what_is_new(connection):
            return
        self._looked = now
        answered, self._looked_for = self._looked_for[:asked], self._looked_for[asked:]
        for looked in answered:
            if not looked.done():
                looked.set_result(None)
        await self._tidy(connection, now)

    async def _say_what_is_new(self, connection: AsyncConnection, now: float) -> None:
        """Tell the others, and do what was asked for since it was looked last."""
        if not self._since:
            self._lease.hasten()
        if await self._lease.renew(connection, now):
            self._since = ""  # all have left, as others see it, or the server has lost all that was seen
            self._unwritten = {**self._mine, **{key: one for key, one in self._unwritten.items() if one is None}}
        await self._write(connection)
        await self._meetings.run(partial(self._ask_who_is_there, connection))
        await self._claims.settle(connection)
        await self._expulsions.run(partial(self._have_put_out, connection))

    async def _hear_what_is_new(self, connection: AsyncConnection) -> bool:
        """Take in what the others have said; not if the server has lost what this node has."""
        rows = await (await connection.execute(_CHANGED, since(self._since))).fetchall()
        snapshot, newest, alive, staying = rows[0][:4]
        if not self._lease.see(
            alive, staying
        ):  # it has ended, perhaps with everything, and behind a pooler without a word
            self._lease.hasten()
            self._wanted.set()
            return False
        lines = [line for line in (Line(*row[4:]) for row in rows) if line.user is not None]
        is_late = bool(self._looked) and self._loop.time() > self._looked + LATE_SECONDS
        self._take(lines, set(alive), is_late=is_late)
        departed, self._departed = self._departed, []
        for key in departed:
            self._listener.departed(*key)
        self._since = up_to(snapshot, newest)
        return True

    async def _tidy(self, connection: AsyncConnection, now: float) -> None:
        if now > self._forgot + LOOK_SECONDS:
            self._forgot = now
            self._theirs.forget(self._listener.shows)
        if now > self._tidied + FORGET_SECONDS:
            self._tidied = now
            self._heeded = {id: heard for id, heard in self._heeded.items() if now < heard + 2 * FORGET_SECONDS}
            self._claims.forget({(session, user.user_id) for (_, session), user in self._mine.items()})
            for statement in _TIDY:
                await connection.execute(statement, {"s": FORGET_SECONDS})

    async def _write(self, connection: AsyncConnection) -> None:
        """Write down who of this node has come and gone."""

        async def write(keys: Sequence[Key]) -> None:
            batch = [(key, self._unwritten[key]) for key in keys if key in self._unwritten]
            came = [
                (*key, user.user_id, user.name, self._claims.held(key[1], user.user_id))
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
            await at_once(list(self._unwritten)[:BATCH_PEOPLE], write, drop)

    async def _ask_who_is_there(self, connection: AsyncConnection, rooms: Sequence[str]) -> None:
        rows = await (await connection.execute(_IN_ROOMS, (list(rooms), self._hints.node))).fetchall()
        people: dict[str, list[tuple[str, str, User]]] = {room: [] for room in rooms}
        for room, session, user, name, at in rows:
            people[room].append((session, at, User(user, name)))
        for room in rooms:
            self._theirs.meet(room, people[room])
            self._meetings.answer(room, None)

    async def _have_put_out(self, connection: AsyncConnection, expulsions: Sequence[Expulsion]) -> None:
        await connection.execute(_EXPEL, tuple(map(list, zip(*expulsions, strict=True))))
        self._hints.hint("people", None)
        for each in expulsions:
            self._heed(*each)
            self._expulsions.answer(each, None)

    def _take_place(self, room: str, session: str, user: User, is_foreign: bool) -> bool:
        """Have a place that was claimed; return whether that is news."""
        # An answer that was lost does not say it again that the place was another node's.
        is_new = is_foreign or ((room, session) not in self._mine and (room, session) not in self._unwritten)
        if is_new:
            self._mine[room, session] = user
            self._unwritten.pop((room, session), None)  # what was to be struck out was the place of an older link
            self._theirs.take(room, session)
            self._hints.hint("people", {room})
        return is_new

    def _wait_for(self, session: str, rooms: tuple[str, ...]) -> None:
        """Whoever has claimed a session has gone meanwhile; its client may yet come."""
        mine = tuple(room for room in rooms if (room, session) in self._mine)
        if mine:
            self._listener.awaited(session, self._mine[mine[0], session], mine)

    async def _look_anew(self, connection: AsyncConnection) -> None:
        """Compare everything that is known with everything that is written down."""
        row = await (await connection.execute(_MOMENT)).fetchone()
        assert row is not None
        self._since = up_to(row[0], row[1])
        for id, user, room in await (await connection.execute(_EXPELLED)).fetchall():
            self._heed(id, user, room, is_old=not self._looked)  # of before it had anybody
        rows = await (await connection.execute(_IN_ROOMS, (self._theirs.rooms(), self._hints.node))).fetchall()
        written = [(room, session, node, User(user, name)) for room, session, user, name, node in rows]
        await self._look_for_mine(connection)  # first: who is here is not met elsewhere
        self._theirs.compare(written, self._loop.time() + DOUBT_SECONDS)

    def _heed(self, id: str, user: str, room: str | None, *, is_old: bool = False) -> None:
        """Put somebody out, once."""
        if not is_old and id not in self._heeded:
            self._theirs.put_out(user, room)
            self._listener.expelled(user, room)
        self._heeded[id] = self._loop.time()

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
            if held < self._claims.held(session, mine.user_id):
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

    def _take(self, lines: Iterable[Line], alive: set[str], *, is_late: bool) -> None:
        """Take in what has changed, and which nodes were alive then."""
        theirs = [line for line in lines if line.node != self._hints.node]
        for line in theirs:
            if line.expulsion is not None:
                self._heed(line.expulsion, line.user, line.room)
        people = [line[:-1] for line in theirs if line.expulsion is None]
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
