"""
What was written to the log, by whichever node?

Each node asks what was committed since it asked last: between two snapshots of the
database lies every commit once, in whatever order they were made. A hint (NOTIFY) says
when it is worth asking; if hints are lost, a node asks all the same, a little later.
Nothing that matters travels in a hint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import psycopg

from holdfast.errors import HoldfastError
from holdfast.store.postgres_database import (
    CLOCK,
    NEW,
    WHERE,
    AsyncConnection,
    Database,
    Home,
    Moved,
    hang_up,
    since,
    up_to,
)
from holdfast.store.postgres_hints import RETRY_SECONDS, Hints
from holdfast.store.store import Listener, Outcome, Record, published
from holdfast.store.told import Told
from holdfast.store.trouble import Trouble

logger = logging.getLogger("holdfast.store")

#: Seconds after which is asked without a hint, unless the store is told otherwise.
POLL_SECONDS = 0.25
#: Seconds without an answer from the database after which a node says that it does not know what is true.
AWAY_SECONDS = 5.0
#: A timer that is later than this says nothing about the database.
LATE_SECONDS = 0.5
#: Publications that are read at once.
TAIL_RECORDS = 256

_MOMENT = "SELECT pg_current_snapshot()::text, (SELECT xid FROM holdfast_log ORDER BY xid DESC LIMIT 1)::text AS newest"
_TAILS = """
SELECT wanted.name, log."offset", log.type, log.body
  FROM unnest(%(rooms)s::text[], %(after)s::bigint[]) WITH ORDINALITY wanted(name, after, place)
  JOIN holdfast_room room ON room.name = wanted.name
  CROSS JOIN LATERAL (
    SELECT "offset", type, body FROM holdfast_log
     WHERE room_id = room.id AND "offset" > wanted.after ORDER BY "offset" LIMIT %(limit)s
  ) log
 ORDER BY place, log."offset" LIMIT %(limit)s
"""
_HEADS = "SELECT name, head FROM holdfast_room WHERE name = ANY(%(rooms)s)"
#: What has changed, and what rooms that were hinted at have new: in most cases that is all there is to be asked.
_CHANGED = f"""
WITH moment AS ({_MOMENT})
SELECT moment.*, {CLOCK}, {WHERE}, name, first, last, NULL, NULL
  FROM moment LEFT JOIN (
    SELECT room_id, min("offset") AS first, max("offset") AS last
      FROM holdfast_log
     WHERE {NEW}
     GROUP BY room_id
  ) news ON true LEFT JOIN holdfast_room ON holdfast_room.id = news.room_id
UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, name, "offset", NULL, type, body FROM ({_TAILS}) tails
"""  # noqa: S608 - all of it is ours


class Feed:
    """What there is news of, in this node."""

    def __init__(
        self,
        database: Database,
        hints: Hints,
        listener: Listener,
        identify: Callable[[], Home],
        moved: Callable[[], None],
        poll: float = POLL_SECONDS,
    ) -> None:
        self._database = database
        self._hints = hints
        self._listener = listener
        self._identify = identify
        self._moved = moved
        self._poll = poll
        self._connection: AsyncConnection | None = None  # with which it begins
        self._since = ""  # the snapshot up to which everything was told
        self._told = Told()
        self._wanted = asyncio.Event()  # to ask before the time
        self._hinted: set[str] = set()  # rooms that it is to be asked for
        self._doubtful: set[str] = set()  # rooms in which a place seems to have been given twice
        self._has_moved = False
        self._is_away = False
        self._silence: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Know where it begins: everything that is committed from now on is told."""
        self._connection = await self._database.connect_async()
        self._since = await _moment(self._connection)

    async def hang_up(self) -> None:
        """Do not begin after all."""
        await hang_up(self._connection)

    def start(self) -> None:
        """Begin to ask."""
        self._loop = asyncio.get_running_loop()
        self._trouble = Trouble(
            "the database could not be asked for news (%s); it is tried again",
            "the database can be asked for news again",
        )
        self._heard_from()
        self._hints.hinted["news"] = self._take_hint
        self._asking = asyncio.create_task(self._ask_for_ever(self._connection))

    async def close(self) -> None:
        """End."""
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)
        if self._silence is not None:
            self._silence.cancel()

    # This node's own.

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """
        Take in what this node has committed.

        What follows the newest that was told is told at once; what others have come before is asked for, with it.
        What was committed in another life of the log is in this one as much as it says when it is asked.
        """
        home = self._database.home
        at_once: list[Record] = []
        for record in published(outcome for outcome in outcomes if home is not None and outcome.epoch == home.epoch):
            told = self._told.get(record.room)
            if told == record.offset - 1 or (told is None and record.offset == 1):
                self._told.update({record.room: record.offset})
                at_once.append(record)
            elif told is not None and told >= record.offset:  # it was asked for before this came here, or …
                self._doubtful.add(record.room)
                self._wanted.set()
            elif self._listener.follows(record.room):
                self._wanted.set()
        self._hints.hint("news", {record.room for record in published(outcomes)})
        if at_once:
            self._listener.news(at_once)

    # Asking.

    async def _ask_for_ever(self, connection: AsyncConnection | None) -> None:
        while True:
            try:
                if self._has_moved:
                    await self._begin_anew()
                if connection is None:
                    connection = await self._database.connect_async()
                    self._doubtful.update(self._told.some())
                await self._go_on(connection)
            except Moved:
                self._has_moved = True
            except (psycopg.Error, OSError, HoldfastError) as error:  # a TimeoutError is an OSError
                self._trouble.begins(error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # a mistake of ours, that must not be the end of it
                logger.exception("news could not be taken in")
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await hang_up(connection)
                connection = None

    async def _go_on(self, connection: AsyncConnection) -> None:
        """Ask again and again, as long as the database answers."""
        while True:
            self._wanted.clear()
            await self._ask(connection)
            self._heard_from()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._wanted.wait()

    async def _ask(self, connection: AsyncConnection) -> None:
        home = self._database.here
        reached = self._database.reached(home)
        hinted = {room: told for room in self._hinted if (told := self._told.get(room)) is not None}
        self._hinted.clear()
        doubtful = {room: told for room in self._doubtful if (told := self._told.get(room)) is not None}
        self._doubtful.clear()
        rows = await self._answer(connection, _CHANGED, since(self._since) | _tails(hinted))
        changed = [row for row in rows if row[0] is not None]
        snapshot, newest, clock, *where = changed[0][:6]
        self._database.check(tuple(where), home, reached)
        self._database.set_clock(clock)
        await self._dispel(connection, doubtful, home)
        self._deliver((room, offset, type, body) for at, *_, room, offset, _, type, body in rows if at is None)
        behind: dict[str, tuple[int, int]] = {}
        for *_, room, first, last, _, _ in changed:
            # Who begins to follow it later asks the store later: what is passed over here is in that answer.
            if room is not None and last < (self._told.get(room) or 0):
                self._doubtful.add(room)
            if room is not None and self._listener.follows(room):
                behind[room] = max(self._told.get(room) or 0, first - 1), last
        await self._catch_up(connection, behind)
        self._since = up_to(snapshot, newest)
        self._told.age()  # what was told before this was asked is not new to the next

    async def _dispel(self, connection: AsyncConnection, doubtful: dict[str, int], home: Home) -> None:
        """
        Raise `Moved` if rooms stand behind what was told of them: an older log was put in place of this one.

        By whatever means: nothing that was committed, and told, can be gone otherwise.
        """
        if not doubtful:
            return
        heads = dict(await self._answer(connection, _HEADS, {"rooms": list(doubtful)}))
        if any(heads.get(room, 0) < told for room, told in doubtful.items()):
            self._database.distrust(home)
            raise Moved("rooms stand behind what was told of them")

    async def _catch_up(self, connection: AsyncConnection, behind: dict[str, tuple[int, int]]) -> None:
        """Read what rooms have from one offset to another, a page at a time, and tell it."""
        while behind := {room: (after, last) for room, (after, last) in behind.items() if after < last}:
            page = {room: after for room, (after, _) in islice(behind.items(), TAIL_RECORDS)}
            rows = await self._answer(connection, _TAILS, _tails(page))
            self._deliver(rows)
            reached = {room: offset for room, offset, _, _ in rows}
            is_all = len(rows) < TAIL_RECORDS
            for room in page:  # of a room that has less than it was said to have, the rest has been trimmed
                last = behind[room][1]
                behind[room] = (last if is_all else reached.get(room, page[room])), last

    def _deliver(self, rows: Iterable[Sequence[Any]]) -> None:
        """Tell what was not told while it was read."""
        records = (Record(room, offset, type, body.encode()) for room, offset, type, body in rows)
        new = [record for record in records if record.offset > (self._told.get(record.room) or 0)]
        self._told.update({record.room: record.offset for record in new})
        if new:
            self._listener.news(new)

    def _take_hint(self, rooms: list[str]) -> None:
        followed = set(filter(self._listener.follows, rooms))
        self._hinted |= followed
        if followed or not rooms:
            self._wanted.set()

    # Whether it is there at all.

    async def _answer(self, connection: AsyncConnection, sql: str, parameters: dict[str, Any]) -> list[Any]:
        """Ask one thing. Whatever is answered, the database is there, however much there is still to be asked."""
        async with asyncio.timeout(AWAY_SECONDS):
            rows = await (await connection.execute(sql.encode(), parameters)).fetchall()
        self._expect_word()
        return rows

    def _heard_from(self) -> None:
        """Everything up to now was told."""
        self._expect_word()
        self._trouble.ends()
        if self._is_away:
            self._is_away = False
            self._database.answers = True
            logger.warning("the database answers again")
            self._listener.back()

    def _expect_word(self) -> None:
        """The database has answered, and is not to fall silent from now on."""
        if self._silence is not None:
            self._silence.cancel()
        until = self._loop.time() + AWAY_SECONDS
        self._silence = self._loop.call_at(until, self._fell_silent, until)

    def _fell_silent(self, until: float) -> None:
        if self._is_away:
            return
        if self._loop.time() > until + LATE_SECONDS:
            self._expect_word()  # it was this process that stood still
            return
        logger.error(
            "the database has not answered for %g s: this node sends everybody away until it does", AWAY_SECONDS
        )
        self._is_away = True
        self._database.fell_silent()
        self._listener.away()

    async def _begin_anew(self) -> None:
        self._database.home = None
        home = await asyncio.to_thread(self._identify)
        connection = await self._database.connect_async(home)
        try:
            self._since = await _moment(connection)
        finally:
            await hang_up(connection)
        self._database.home = home
        self._has_moved = False
        self._told = Told()
        logger.error("the database is another, or has another life (%s): everybody starts afresh", self._database.here)
        self._moved()


def _tails(after: dict[str, int]) -> dict[str, Any]:
    """Return the parameters that ask what rooms have after these offsets."""
    return {"rooms": list(after), "after": list(after.values()), "limit": TAIL_RECORDS}


async def _moment(connection: AsyncConnection) -> str:
    """Return what is visible now."""
    row = await (await connection.execute(_MOMENT)).fetchone()
    assert row is not None
    return up_to(*row)
