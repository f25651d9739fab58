"""
What may the log forget?

Publications of a room beyond a number, or older than an age, whichever keeps less; and
answers to keyed commands that nobody retries any more. A room's head stays for ever. What
there is to forget is looked for beside the writer; it is forgotten a little at a time, so
that nobody else waits long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.errors import Unavailable
from holdfast.store.store import Outcome, ReadTransaction, Retention, Transaction

logger = logging.getLogger("holdfast.store")

#: Rooms that are looked at in one query; of those that have too much, how many are trimmed in one change; and rows.
ROOMS, TRIMMED, ROWS = 500, 20, 5_000
#: Seconds between two looks at what may be forgotten.
FORGET_EVERY = 60.0

Commit = Callable[..., Awaitable[Outcome]]
Read = Callable[..., Awaitable[Any]]
#: Rooms, each with the first offset that is kept.
Excess = list[tuple[int, int]]


async def keep_house(read: Read, commit: Commit, retention: Retention | None, wall: Callable[[], float]) -> None:
    """Forget what need not be kept, again and again."""
    while True:
        try:
            if retention is not None:
                await forget(read, commit, retention, wall())
        except Unavailable as error:
            logger.warning("the log could not be trimmed (%s); it is tried again", error)
        except Exception:
            logger.exception("the log could not be trimmed; it is tried again")
        await asyncio.sleep(FORGET_EVERY)


async def forget(read: Read, commit: Commit, retention: Retention, now: float) -> None:
    """Forget what need not be kept now (seconds since 1970), whatever time others have written."""
    room: int | None = 0
    while room is not None:
        excess, room = await read(find_excess, retention.records, _microseconds(now - retention.seconds), room)
        while excess:
            left = (await commit(forget_publications, (excess[:TRIMMED],))).result
            excess = left + excess[TRIMMED:]
    while (await commit(forget_verdicts, (_microseconds(now - retention.verdict_seconds),))).result:
        pass


def find_excess(tx: ReadTransaction, records: int, too_old: int, after: int) -> tuple[Excess, int | None]:
    """Return rooms behind `after` that have more than they keep, and where to go on; None at the end (a query)."""
    excess: Excess = []
    for _ in range(ROOMS):
        row = tx.one(
            'SELECT room_id, "offset" FROM holdfast_log WHERE room_id > ? ORDER BY room_id, "offset" LIMIT 1', (after,)
        )
        if row is None:
            return excess, None
        after = int(row["room_id"])
        keep_from = _keep_from(tx, records, after, too_old)
        if keep_from > int(row["offset"]):
            excess.append((after, keep_from))
    return excess, after


def forget_publications(tx: Transaction, excess: Excess) -> Excess:
    """Trim these rooms (a change); return those that still have more than they are to keep."""
    left: Excess = []
    for room, keep_from in excess:
        first = tx.one('SELECT min("offset") AS first FROM holdfast_log WHERE room_id = ?', (room,))
        assert first is not None
        until = keep_from if first["first"] is None else min(keep_from, int(first["first"]) + ROWS)
        tx.execute('DELETE FROM holdfast_log WHERE room_id = ? AND "offset" < ?', (room, until))
        if until < keep_from:
            left.append((room, keep_from))
    return left


def forget_verdicts(tx: Transaction, too_old: int) -> bool:
    """Delete some that nobody asks for any more (a change); return whether there may be more."""
    deleted = tx.execute(
        'DELETE FROM holdfast_verdict WHERE ("user", key, part) IN '
        '(SELECT "user", key, part FROM holdfast_verdict WHERE at < ? LIMIT ?)',
        (too_old, ROWS),
    )
    return deleted == ROWS


def _keep_from(tx: ReadTransaction, records: int, room: int, too_old: int) -> int:
    """Return the first offset of a room that is kept."""
    head = tx.one("SELECT head FROM holdfast_room WHERE id = ?", (room,))
    assert head is not None, "a room's head stays for ever"
    oldest = tx.one(
        'SELECT "offset" FROM holdfast_log WHERE room_id = ? AND at >= ? ORDER BY "offset" LIMIT 1', (room, too_old)
    )
    young = head["head"] + 1 if oldest is None else int(oldest["offset"])
    return max(young, int(head["head"]) - records + 1)


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)
