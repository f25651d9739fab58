"""
What is to be done with one question to the database, for all who have asked for the like?
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import psycopg

from holdfast.errors import Invalid

logger = logging.getLogger("holdfast.store")

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


async def at_once(
    keys: Sequence[K], do: Callable[[Sequence[K]], Awaitable[None]], fail: Callable[[K, Exception], None]
) -> None:
    """Do something for all of these at once; one that the database does not take fails, and no other."""
    if not keys:
        return
    try:
        await do(keys)
    except (psycopg.DataError, UnicodeError) as error:
        if len(keys) == 1:
            fail(keys[0], error)
        else:
            half = len(keys) // 2
            await at_once(keys[:half], do, fail)
            await at_once(keys[half:], do, fail)


class Errands(Generic[K, A]):
    """Who waits for the answer to what, until it is given, or they have given up."""

    def __init__(self) -> None:
        self._waiting: dict[K, list[asyncio.Future[A]]] = {}

    def add(self, key: K) -> asyncio.Future[A]:
        """Return what will be the answer."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        return answer

    def keys(self) -> list[K]:
        """Return what somebody still waits for."""
        for key in [key for key, futures in self._waiting.items() if all(future.done() for future in futures)]:
            del self._waiting[key]
        return list(self._waiting)

    async def run(self, do: Callable[[Sequence[K]], Awaitable[None]]) -> None:
        """Do what somebody still waits for; `do` answers."""
        await at_once(self.keys(), do, self._refuse)

    def answer(self, key: K, answer: A) -> bool:
        """Tell everybody who has asked for this; return whether there is still anybody."""
        waiting = self._take(key)
        for future in waiting:
            future.set_result(answer)
        return bool(waiting)

    def _refuse(self, key: K, error: Exception) -> None:
        """Tell everybody who has asked for this that there is no answer to such a question."""
        logger.error("the database does not take what was asked for: %s", error)
        for future in self._take(key):
            future.set_exception(Invalid("this cannot be the name of a room, a session or a user"))

    def _take(self, key: K) -> list[asyncio.Future[A]]:
        return [future for future in self._waiting.pop(key, ()) if not future.done()]
