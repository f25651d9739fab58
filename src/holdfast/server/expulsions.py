"""
Who was put out while it was being asked whether they may come in?

What was said of them then says nothing any more: they are asked about again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: A user, and the room that they were put out of; None: of all.
Expulsion = tuple[str, str | None]


class Expulsions:
    """Those of one Hub, for as long as somebody wants to know."""

    def __init__(self) -> None:
        self._noted: dict[int, set[Expulsion]] = {}  # by who wants to know

    def note(self, user_id: str, room: str | None) -> None:
        """Somebody is put out."""
        for noted in self._noted.values():
            noted.add((user_id, room))

    @contextmanager
    def meanwhile(self) -> Iterator[set[Expulsion]]:
        """Note who is put out, until this is over."""
        noted: set[Expulsion] = set()
        self._noted[id(noted)] = noted
        try:
            yield noted
        finally:
            del self._noted[id(noted)]

    async def outlast(self, whose: Callable[[T], str | None], ask: Callable[[], Awaitable[T]]) -> T:
        """Return what is said of somebody who wants in; if they, `whose` it is, were put out meanwhile, ask again."""
        while True:
            with self.meanwhile() as noted:
                answer = await ask()
            user_id = whose(answer)
            if not any(user_id == other for other, _ in noted):
                return answer
