"""
Which thread runs what a store is asked?

One runs all changes, and commits them; some run the application's queries; and others read the
log, so that who joins waits for no slow query.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Concatenate, ParamSpec, TypeVar

from holdfast.core.ready import Span
from holdfast.errors import Closed
from holdfast.store import log
from holdfast.store.store import Once, Outcome, ReadTransaction, Record, Transaction
from holdfast.store.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedStore(ABC):
    """What is alike in a store, whichever database it is in (see `Store`)."""

    _writer: Writer
    _reads: Executor
    _log_reads: Executor

    async def write(self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `change` in a transaction, and return what it returned once that is on the disk."""
        outcome = await self.commit(change, args, kwargs)
        result: T = outcome.result
        return result

    async def commit(
        self,
        change: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        once: Once | None = None,
    ) -> Outcome:
        """Like `write`, with what was published; with `once`, a repetition is answered as the first was."""
        return await self._writer.commit(change, args, kwargs or {}, once)

    async def read(self, query: Callable[Concatenate[ReadTransaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `query` on one moment of the store, and return what it returned."""
        return await self._ask(self._reads, query, args, kwargs)

    async def span(self, room: str) -> Span:
        """Return what the log of `room` holds."""
        return await self._ask(self._log_reads, log.span, (room,))

    async def page(self, room: str, after: int) -> list[Record]:
        """Return what follows `after`: from the first that is left, as much as fits a page."""
        return await self._ask(self._log_reads, log.page, (room, after))

    async def _ask(
        self, reads: Executor, query: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> T:
        if not self._writer.accepting:
            raise Closed("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(reads, self._reading(query, args, kwargs or {}))

    @abstractmethod
    def _reading(self, query: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], T]:
        """Return what runs a query, in a thread, on this store as it is known now."""
