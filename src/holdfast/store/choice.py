"""
Which store is meant?

The one that a hub was told to have; unless a test has said, for a while, that stores are kept elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import StoreError
from holdfast.protocol.codec import Codec
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Retention, Store

if TYPE_CHECKING:
    from holdfast.store.redis_carrier import RedisCarrier

#: libpq's connection strings: URIs, or keywords and values.
_POSTGRES = re.compile(r"postgres(ql)?://|(\w+ *= *\S+ +)*(host|dbname|service) *=")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which store a hub was told to have, and what it needs of any."""

    place: str | Store
    codec: Codec
    migrations: Sequence[str] | Mapping[str, Sequence[str]]
    retention: Retention

    def in_file(self, path: str, **options: Any) -> SqliteStore:
        """Return a store for the same hub in another file, or in `memory:`."""
        scripts = _scripts(self.migrations, "sqlite")
        return SqliteStore(path, self.codec, migrations=scripts, retention=self.retention, **options)


#: Returns the store that a hub has instead, or None: the one that it was told to have.
Instead = Callable[[Choice], Store | None]
_instead: list[Instead] = []


@contextmanager
def kept_elsewhere(instead: Instead) -> Iterator[None]:
    """While this lasts, a hub that is opened has the store that `instead` returns: for tests, of all that runs here."""
    _instead.append(instead)
    try:
        yield
    finally:
        _instead.remove(instead)


def chosen(choice: Choice, own: Store) -> Store:
    """Return the store of a hub that is opened now."""
    store = _instead[-1](choice) if _instead else None
    return own if store is None else store


def is_shared(store: str) -> bool:
    """Whether several processes can serve it: a database can be shared, a file cannot."""
    return _POSTGRES.match(store) is not None


def store_at(
    place: str,
    codec: Codec,
    *,
    migrations: Sequence[str] | Mapping[str, Sequence[str]],
    retention: Retention,
    listen: str | None = None,
    redis: str | None = None,
    poll: float = 0.25,
) -> Store:
    """Return the store in a file, in `memory:`, or in a PostgreSQL database (`postgresql://…`)."""
    scripts = _scripts(migrations, "postgresql" if is_shared(place) else "sqlite")
    if not is_shared(place):
        if listen is not None or redis is not None:
            raise ValueError(f"{'listen' if redis is None else 'redis'} is for a store in PostgreSQL")
        return SqliteStore(place, codec, migrations=scripts, retention=retention)
    try:
        from holdfast.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreError(f"a store in PostgreSQL needs psycopg (pip install 'holdfast[postgres]'): {error}") from None
    carrier = None if redis is None else _redis_at(redis)
    return PostgresStore(
        place, codec, listen=listen, carrier=carrier, poll=poll, migrations=scripts, retention=retention
    )


def _scripts(migrations: Sequence[str] | Mapping[str, Sequence[str]], dialect: str) -> Sequence[str]:
    if not isinstance(migrations, Mapping):
        return migrations
    if dialect not in migrations:
        raise ValueError(f"there are no migrations for {dialect}")
    return migrations[dialect]


def _redis_at(url: str) -> RedisCarrier:
    try:
        from holdfast.store.redis_carrier import RedisCarrier
    except ImportError as error:
        raise StoreError(f"Redis needs redis-py (pip install 'holdfast[redis]'): {error}") from None
    return RedisCarrier(url)
