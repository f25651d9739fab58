"""
Which store is meant?
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from holdfast.errors import StoreError
from holdfast.protocol.codec import Codec
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Retention, Store

if TYPE_CHECKING:
    from holdfast.store.redis_carrier import RedisCarrier

#: libpq's connection strings: URIs, or keywords and values.
_POSTGRES = re.compile(r"postgres(ql)?://|(\w+ *= *\S+ +)*(host|dbname|service) *=")


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
    dialect = "postgresql" if is_shared(place) else "sqlite"
    if isinstance(migrations, Mapping) and dialect not in migrations:
        raise ValueError(f"there are no migrations for {dialect}")
    scripts = migrations[dialect] if isinstance(migrations, Mapping) else migrations
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


def _redis_at(url: str) -> RedisCarrier:
    try:
        from holdfast.store.redis_carrier import RedisCarrier
    except ImportError as error:
        raise StoreError(f"Redis needs redis-py (pip install 'holdfast[redis]'): {error}") from None
    return RedisCarrier(url)
