"""
What is in a statement of the application's?

Its placeholders are `?`, as in SQLite, and psycopg's are `%s`; it is one statement, and leaves the
transaction alone.
"""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def to_postgres(sql: str) -> str:
    """Return SQL whose placeholders are `?` as psycopg reads it."""
    return _TOKEN.sub(lambda found: {"?": "%s", "%": "%%"}.get(found[0], found[0].replace("%", "%%")), sql)


@lru_cache(maxsize=1024)
def holds_several(sql: str) -> bool:
    """Whether there is more than one statement."""
    return ";" in _TOKEN.sub(lambda found: "" if len(found[0]) > 1 else found[0], sql).strip().rstrip(";")


def controls(sql: str) -> bool:
    """Whether it begins or ends a transaction."""
    return _CONTROL.match(sql) is not None


#: What a `?` or `%` may be hidden in: strings, names, comments, dollar quotes.
_TOKEN = re.compile(
    r"\b[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|\?|%", re.DOTALL
)
_CONTROL = re.compile(
    r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION|SET\s+TRANSACTION)\b",
    re.IGNORECASE | re.DOTALL,
)
