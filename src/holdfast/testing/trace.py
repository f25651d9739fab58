"""
Was this the same run?

One number for everything that has happened: each piece of bytes that came anywhere (when, on which
connection, in which direction, and every byte of it), and whatever else was noted. Two runs that
differ in one byte, or in one moment, have another one.
"""

from __future__ import annotations

import hashlib


class Trace:
    """What has happened, as it happens; `str` is the number."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def note(self, now: float, *what: object) -> None:
        """Take in something that is not on the network."""
        self._hash.update(f"{now!r} {what}\n".encode())

    def arrived(self, now: float, connection: int, *, at_server: bool, piece: bytes) -> None:
        """Take in a piece that has come to one end of a connection."""
        self._hash.update(f"{now!r} {connection} {at_server} {len(piece)}\n".encode())
        self._hash.update(piece)

    def __str__(self) -> str:
        return self._hash.hexdigest()[:16]
