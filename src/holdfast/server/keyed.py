"""
Whose command is being carried out, and under which key?

A message that carries a `key` may come twice: its answer was lost, or its client is not
sure. Then everything that its handler writes and publishes is answered as the first time,
and takes effect once; also after a crash, for the answer is kept in the same transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

from holdfast.store.store import Once

_current: ContextVar[Iterator[Once] | None] = ContextVar("holdfast_command", default=None)


@contextmanager
def command(user: str, key: str | None, says: str) -> Iterator[None]:
    """Let what is written meanwhile, in this task, take effect once for this user and key."""
    fingerprint = hashlib.sha256(says.encode()).hexdigest()
    # A handler may write more than once; it does so in the same order each time.
    writes = None if key is None else (Once(user, f"{key}#{number}", fingerprint) for number in count())
    token = _current.set(writes)
    try:
        yield
    finally:
        _current.reset(token)


def next_once() -> Once | None:
    """Return what makes the next write of this command take effect once; None: it carries no key."""
    writes = _current.get()
    return None if writes is None else next(writes)
