"""
Which migrations has a store still to run, and is it the one that they were written for?

Each that has run is recorded with its number and the hash of its text. What has run cannot be
run again: if its text is another now, or if there are more than are known here, nobody knows
what the tables look like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.errors import StoreError


@dataclass(frozen=True, slots=True)
class Migration:
    """A script that changes tables: the `number`th of its `owner` (holdfast, or the application)."""

    owner: str
    number: int
    script: str

    @property
    def hash(self) -> str:
        """What tells its text from others."""
        return hashlib.sha256(self.script.encode()).hexdigest()


def pending(owner: str, scripts: Sequence[str], recorded: Mapping[int, str]) -> list[Migration]:
    """
    Return what is to be run, in order; `recorded` are the hashes of those that have been, by number.

    A program that names none has no tables of its own, and asks nothing of those of others.
    """
    if not scripts:
        return []
    known = [Migration(owner, number, script) for number, script in enumerate(scripts, 1)]
    for migration in known:
        if recorded.get(migration.number, migration.hash) != migration.hash:
            raise StoreError(
                f"migration {migration.number} of {owner} is not the one that was run on this store: "
                "one that has run must not be changed (add another), and a store serves one application"
            )
    if len(recorded) > len(known):
        raise StoreError(
            f"{len(recorded)} migrations of {owner} were run on this store, and {len(known)} are known here: "
            "it was written by a newer version, or by another application"
        )
    return known[len(recorded) :]
