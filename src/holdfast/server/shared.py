"""
How is the same question, asked by many at once, asked once?

Whoever asks while it is on its way waits for the next answer: this one may be older than
what they know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


class Shared(Generic[K, A]):
    """A question, of which each answer is for all who asked before it was on its way."""

    def __init__(self, ask: Callable[[K], Awaitable[A]]) -> None:
        self._ask = ask
        self._next: dict[K, asyncio.Task[A]] = {}
        self._current: dict[K, asyncio.Task[A]] = {}

    async def __call__(self, key: K) -> A:
        """Return the answer; it raises for everybody what it raises."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key, self._current.get(key)))
        return await asyncio.shield(task)

    async def _run(self, key: K, before: asyncio.Task[A] | None) -> A:
        if before is not None:
            await asyncio.wait({before})
        task = self._current[key] = self._next.pop(key)
        try:
            return await self._ask(key)
        finally:
            if self._current[key] is task:
                del self._current[key]
