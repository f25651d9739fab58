"""
What may the log forget?

Publications of a room beyond a number, or older than an age, whichever keeps less; and
answers to keyed commands that nobody retries any more. A room's head stays for ever.
"""

from __future__ import annotations

from datetime import datetime

from holdfast.store.store import Retention, Transaction


def forget(transaction: Transaction, retention: Retention) -> None:
    """Delete what is beyond the retention (a change)."""
    now = datetime.fromisoformat(transaction.now).timestamp()
    for room in transaction.all("SELECT id, head FROM holdfast_room"):
        oldest = transaction.one(
            "SELECT offset FROM holdfast_log WHERE room_id = ? AND at >= ? ORDER BY offset LIMIT 1",
            (room["id"], int((now - retention.seconds) * 1_000_000)),
        )
        keep_from = room["head"] + 1 if oldest is None else oldest["offset"]
        transaction.execute(
            "DELETE FROM holdfast_log WHERE room_id = ? AND offset < ?",
            (room["id"], max(keep_from, room["head"] - retention.records + 1)),
        )
    transaction.execute(
        "DELETE FROM holdfast_verdict WHERE at < ?", (int((now - retention.verdict_seconds) * 1_000_000),)
    )
