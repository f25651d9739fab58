"""
How is an application tested without its files?
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.store.choice import Choice, kept_elsewhere
from holdfast.store.store import Store


@contextmanager
def hubs_in_memory() -> Iterator[None]:
    """While this lasts, every hub that is opened begins with an empty log, in memory, wherever it was told to be."""

    def instead(choice: Choice) -> Store | None:
        return choice.in_file("memory:") if isinstance(choice.place, str) else None

    with kept_elsewhere(instead):
        yield
