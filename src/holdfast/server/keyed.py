"""
Whose command is being carried out, and under which key?

A message that carries a `key` may come twice: its answer was lost, or its client is not
sure. Then everything that its handler writes and publishes is answered as the first time,
and takes effect once; also after a crash, for the answer is kept in the same transaction.
A handler need not go the same way each time: what it had not come to yet is done then.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from holdfast.store.store import Once


class _Command:
    """One attempt at a command, and what its handler has written so far."""

    def __init__(self, user: str, key: str, fingerprint: str) -> None:
        self._user = user
        self._key = key
        self._fingerprint = fingerprint
        self._times: Counter[str] = Counter()

    def next(self, what: str) -> Once:
        self._times[what] += 1
        return Once(self._user, self._key, self._fingerprint, f"{what} #{self._times[what]}")


_current: ContextVar[_Command | None] = ContextVar("holdfast_command", default=None)


@contextmanager
def command(user: str, key: str | None, *says: Any) -> Iterator[None]:
    """Let what is written meanwhile, in this task, take effect once for this user and key, by which it `says` this."""
    token = _current.set(None if key is None else _Command(user, key, _fingerprint(says)))
    try:
        yield
    finally:
        _current.reset(token)


def _fingerprint(says: tuple[Any, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode(says, order="deterministic")).hexdigest()


def next_once(what: str) -> Once | None:
    """Return what makes the next write of this kind take effect once for this command; None: it carries no key."""
    current = _current.get()
    return None if current is None else current.next(what)
