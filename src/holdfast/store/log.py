"""
What does the log of a room hold?

Queries that both databases understand; rows come back as records.
"""

from __future__ import annotations

from holdfast.core.ready import CHUNK_BYTES, Span
from holdfast.store.store import ReadTransaction, Record

#: Publications in one page for those who catch up, which is also at most `CHUNK_BYTES` long.
PAGE_RECORDS = 256


def span(transaction: ReadTransaction, room: str) -> Span:
    """Return what the log of `room` holds (a query)."""
    row = transaction.one(
        'SELECT head, (SELECT min("offset") FROM holdfast_log WHERE room_id = id) AS floor '
        "FROM holdfast_room WHERE name = ?",
        (room,),
    )
    if row is None:
        return Span(1, 0)
    return Span(row["head"] + 1 if row["floor"] is None else row["floor"], row["head"])


def page(transaction: ReadTransaction, room: str, after: int) -> list[Record]:
    """Return what follows `after`: from the first that is left, as much as fits a page (a query)."""
    rows = transaction.all(
        'SELECT "offset", type, body FROM holdfast_log '
        'WHERE room_id = (SELECT id FROM holdfast_room WHERE name = ?) AND "offset" > ? ORDER BY "offset" LIMIT ?',
        (room, after, PAGE_RECORDS),
    )
    records: list[Record] = []
    size = 0
    for row in rows:
        body = row["body"].encode()
        size += len(body)
        if records and size > CHUNK_BYTES:
            break
        records.append(Record(room, row["offset"], row["type"], body))
    return records
