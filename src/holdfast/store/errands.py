"""
What is to be done with one question to the database, for all who have asked for the like?
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


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

    def answer(self, key: K, answer: A) -> bool:
        """Tell everybody who has asked for this; return whether there is still anybody."""
        waiting = self._take(key)
        for future in waiting:
            future.set_result(answer)
        return bool(waiting)

    def fail(self, key: K, error: Exception) -> None:
        """Tell everybody who has asked for this that there is no answer, and why."""
        for future in self._take(key):
            future.set_exception(error)

    def _take(self, key: K) -> list[asyncio.Future[A]]:
        return [future for future in self._waiting.pop(key, ()) if not future.done()]
