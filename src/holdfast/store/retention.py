"""
What may the log forget?

Publications of a room beyond a number, or older than an age, whichever keeps less; and
answers to keyed commands that nobody retries any more. A room's head stays for ever. All
of it a little at a time: each of these changes holds up the others for some milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from holdfast.store.store import Outcome, Retention, Transaction

logger = logging.getLogger("holdfast.store")

#: Rooms that are looked at in one change, and rows that are deleted.
ROOMS, ROWS = 500, 5_000
#: Seconds between two looks at what may be forgotten.
FORGET_EVERY = 60.0

Commit = Callable[..., Awaitable[Outcome]]


async def keep_house(commit: Commit, retention: Retention | None) -> None:
    """Forget what need not be kept, again and again."""
    while True:
        try:
            if retention is not None:
                await forget(commit, retention)
        except Exception:
            logger.exception("the log could not be trimmed; it is tried again")
        await asyncio.sleep(FORGET_EVERY)


async def forget(commit: Commit, retention: Retention) -> None:
    """Forget what need not be kept, a little at a time, so that no writer waits long."""

    async def run(change: Callable[..., Any], *args: Any) -> Any:
        return (await commit(change, args)).result

    room: int | None = 0
    while room is not None:
        room = await run(forget_publications, retention, room)
    while await run(forget_verdicts, retention):
        pass


def forget_publications(transaction: Transaction, retention: Retention, after: int) -> int | None:
    """Go on behind the room `after` (a change); return where to go on from, or None at the end."""
    too_old = _microseconds(transaction, retention.seconds)
    deleted = 0
    for _ in range(ROOMS):
        row = transaction.one(
            'SELECT room_id, "offset" FROM holdfast_log WHERE room_id > ? ORDER BY room_id, "offset" LIMIT 1', (after,)
        )
        if row is None:
            return None
        room, first = int(row["room_id"]), int(row["offset"])
        keep_from = min(_keep_from(transaction, retention, room, too_old), first + ROWS - deleted)
        transaction.execute('DELETE FROM holdfast_log WHERE room_id = ? AND "offset" < ?', (room, keep_from))
        deleted += max(0, keep_from - first)
        if deleted >= ROWS:
            return room - 1  # there may be more in this one
        after = room
    return after


def forget_verdicts(transaction: Transaction, retention: Retention) -> bool:
    """Delete some that nobody asks for any more (a change); return whether there may be more."""
    old = transaction.all(
        'SELECT "user", key, part FROM holdfast_verdict WHERE at < ? LIMIT ?',
        (_microseconds(transaction, retention.verdict_seconds), ROWS),
    )
    for row in old:
        transaction.execute(
            'DELETE FROM holdfast_verdict WHERE "user" = ? AND key = ? AND part = ?',
            (row["user"], row["key"], row["part"]),
        )
    return len(old) == ROWS


def _keep_from(transaction: Transaction, retention: Retention, room: int, too_old: int) -> int:
    """Return the first offset of a room that is kept."""
    head = transaction.one("SELECT head FROM holdfast_room WHERE id = ?", (room,))
    assert head is not None, "a room's head stays for ever"
    oldest = transaction.one(
        'SELECT "offset" FROM holdfast_log WHERE room_id = ? AND at >= ? ORDER BY "offset" LIMIT 1', (room, too_old)
    )
    young = head["head"] + 1 if oldest is None else int(oldest["offset"])
    return max(young, int(head["head"]) - retention.records + 1)


def _microseconds(transaction: Transaction, seconds: float) -> int:
    """Return the time that was so many seconds ago."""
    return int((datetime.fromisoformat(transaction.now).timestamp() - seconds) * 1_000_000)
