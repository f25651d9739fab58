"""
What may the log forget?

Publications of a room beyond a number, or older than an age, whichever keeps less; and
answers to keyed commands that nobody retries any more. A room's head stays for ever. All
of it a little at a time: each of these changes holds up the others for some milliseconds.
"""

from __future__ import annotations

from datetime import datetime

from holdfast.store.store import Retention, Transaction

#: Rooms that are looked at in one change, and rows that are deleted.
ROOMS, ROWS = 500, 5_000


def forget_publications(transaction: Transaction, retention: Retention, after: int) -> int | None:
    """Go on behind the room `after` (a change); return where to go on from, or None at the end."""
    too_old = _microseconds(transaction, retention.seconds)
    deleted = 0
    for _ in range(ROOMS):
        row = transaction.one(
            "SELECT room_id, offset FROM holdfast_log WHERE room_id > ? ORDER BY room_id, offset LIMIT 1", (after,)
        )
        if row is None:
            return None
        room, first = int(row["room_id"]), int(row["offset"])
        keep_from = min(_keep_from(transaction, retention, room, too_old), first + ROWS - deleted)
        transaction.execute("DELETE FROM holdfast_log WHERE room_id = ? AND offset < ?", (room, keep_from))
        deleted += max(0, keep_from - first)
        if deleted >= ROWS:
            return room - 1  # there may be more in this one
        after = room
    return after


def forget_verdicts(transaction: Transaction, retention: Retention) -> bool:
    """Delete some that nobody asks for any more (a change); return whether there may be more."""
    old = transaction.all(
        "SELECT user, key, part FROM holdfast_verdict WHERE at < ? LIMIT ?",
        (_microseconds(transaction, retention.verdict_seconds), ROWS),
    )
    for row in old:
        transaction.execute(
            "DELETE FROM holdfast_verdict WHERE user = ? AND key = ? AND part = ?",
            (row["user"], row["key"], row["part"]),
        )
    return len(old) == ROWS


def _keep_from(transaction: Transaction, retention: Retention, room: int, too_old: int) -> int:
    """Return the first offset of a room that is kept."""
    head = transaction.one("SELECT head FROM holdfast_room WHERE id = ?", (room,))
    assert head is not None, "a room's head stays for ever"
    oldest = transaction.one(
        "SELECT offset FROM holdfast_log WHERE room_id = ? AND at >= ? ORDER BY offset LIMIT 1", (room, too_old)
    )
    young = head["head"] + 1 if oldest is None else int(oldest["offset"])
    return max(young, int(head["head"]) - retention.records + 1)


def _microseconds(transaction: Transaction, seconds: float) -> int:
    """Return the time that was so many seconds ago."""
    return int((datetime.fromisoformat(transaction.now).timestamp() - seconds) * 1_000_000)
