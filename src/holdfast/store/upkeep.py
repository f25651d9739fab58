"""
What can be done to a store from outside?

A consistent copy of one that is being served, and a new life after a restore: then every
position that a client has is refused with `epoch`, and it starts afresh.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from holdfast.errors import StoreError
from holdfast.store.lock import Lock
from holdfast.store.store import new_epoch


def back_up(source: Path, target: Path) -> None:
    """Copy a store, as it is at one moment, also while it is served. The copy, when served, has an epoch of its own."""
    _must_be_a_store(source)
    if target.exists():
        raise StoreError(f"{target} exists already")
    try:
        target.touch(0o600)  # the signing key is in it
        with closing(sqlite3.connect(source)) as store, closing(sqlite3.connect(target)) as copy:
            store.execute("PRAGMA query_only = ON")
            store.backup(copy)
    except (OSError, sqlite3.Error) as error:
        target.unlink(missing_ok=True)
        raise StoreError(f"cannot copy {source} to {target}: {error}") from None


def renew_epoch(path: Path) -> str:
    """Give a store that nobody serves a new epoch, and return it: after a restore in place."""
    _must_be_a_store(path)
    with closing(Lock().take(path)), closing(sqlite3.connect(path)) as store:
        epoch = new_epoch()
        try:
            with store:
                store.execute("INSERT OR REPLACE INTO holdfast_meta VALUES ('epoch', ?)", (epoch,))
        except sqlite3.Error as error:
            raise StoreError(f"cannot write {path}: {error}") from None
    return epoch


def _must_be_a_store(path: Path) -> None:
    if not path.exists():
        raise StoreError(f"there is no {path}")
    try:
        with closing(sqlite3.connect(path)) as store:
            store.execute("SELECT value FROM holdfast_meta LIMIT 1")
    except sqlite3.Error as error:
        raise StoreError(f"{path} is not a store of holdfast: {error}") from None
