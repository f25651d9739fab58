"""
Who takes changes from the event loop to the thread that commits them, and their outcomes back?

Whatever waits when the thread is free shares one commit. Outcomes and news come back in
one step of the loop, in the order of the commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from holdfast.errors import Closed, StoreError, Unavailable
from holdfast.store import transaction
from holdfast.store.commit import Job, Later
from holdfast.store.store import Once, Outcome
from holdfast.store.worker import Worker

logger = logging.getLogger("holdfast.store")

#: A change that waits for somebody who does not come to an end lets the others pass: for so many seconds, then twice
#: as long each time.
ASIDE_SECONDS = 0.1
#: Changes in one commit: enough to make an fsync cheap, few enough that the first does not wait long.
BATCH_CHANGES = 512
#: Changes that may wait: beyond this the disk does not keep up, and it is kinder to say so.
WAITING_CHANGES = 10_000


class Writer:
    """Changes on their way to a commit."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: deque[Job] = deque()
        self._later: dict[asyncio.TimerHandle, Job] = {}
        self.accepting = False

    def start(
        self, commit: Callable[[list[Job]], list[Outcome | BaseException]], news: Callable[[list[Outcome]], None]
    ) -> None:
        """Begin: `commit` is called in the worker, `news` in this event loop with what has published, in order."""
        self._loop = asyncio.get_running_loop()
        self._commit = commit
        self._news = news
        self._worker.start(self._drain)
        self.accepting = True

    async def stop(self) -> None:
        """Finish what was accepted."""
        self.accepting = False
        for timer, job in self._later.items():  # once more
            timer.cancel()
            self._waiting.append(job)
        await self._worker.stop()
        self._drain()
        await asyncio.sleep(0)  # let the last answers arrive

    async def commit(
        self, change: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], once: Once | None
    ) -> Outcome:
        """Have a change committed, and return what it came to once that is on the disk."""
        if not self.accepting:
            raise Closed("the store is closed")
        if len(self._waiting) + len(self._later) >= WAITING_CHANGES:
            raise Unavailable(f"{WAITING_CHANGES} changes are waiting for the disk; try again")
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def answer(outcome: Outcome | BaseException) -> None:
            if future.cancelled():
                return
            if isinstance(outcome, Outcome):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        self._waiting.append(Job(change, args, kwargs, once, answer, self._loop.time() + transaction.CHANGE_SECONDS))
        self._worker.wake()
        return await future

    def _drain(self) -> None:
        """Commit whatever waits (in the writer's thread)."""
        while self._waiting:
            jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_CHANGES))]
            try:
                outcomes = self._commit(jobs)
            except Exception as error:  # a mistake of ours: this thread must outlive it
                logger.exception("changes could not be committed")
                outcomes = [StoreError(f"the change could not be committed: {error!r}") for _ in jobs]
            self._loop.call_soon_threadsafe(self._tell, jobs, outcomes)

    def _tell(self, jobs: list[Job], outcomes: list[Outcome | BaseException]) -> None:
        """Answer those who wait, and give the news (in the event loop, after the commit)."""
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Later):
                self._put_aside(job, str(outcome))
            else:
                job.answer(outcome)
        published = [outcome for outcome in outcomes if isinstance(outcome, Outcome) and outcome.publications]
        if published:
            self._news(published)

    def _put_aside(self, job: Job, reason: str) -> None:
        """Have a change tried again a little later, but for no longer than one may take since it was asked for."""
        now = self._loop.time()
        if now >= job.until or not self.accepting:
            job.answer(Unavailable(reason))
            return

        def again() -> None:
            del self._later[timer]
            self._waiting.append(job)
            self._worker.wake()

        job.pause = min(2 * job.pause or ASIDE_SECONDS, job.until - now)
        timer = self._loop.call_later(job.pause, again)
        self._later[timer] = job
