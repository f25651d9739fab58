"""Changes that wait share a commit; each is answered, in order, after it, and no more wait than may."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from holdfast.errors import Closed, StoreError, Unavailable
from holdfast.store import commit, writer
from holdfast.store.commit import Job, Later
from holdfast.store.store import Outcome, Transaction
from holdfast.store.transaction import CHANGE_SECONDS
from holdfast.store.worker import InlineWorker
from holdfast.store.writer import ASIDE_SECONDS, Writer
from holdfast.testing.virtual import VirtualLoop
from store.conftest import Kept, OpenStore, take_note


async def test_each_writer_is_answered_after_its_own_order(kept: Kept) -> None:
    answered: list[int] = []

    async def write(number: int) -> None:
        await kept.store.write(take_note, str(number))
        answered.append(number)

    await asyncio.gather(*(write(number) for number in range(100)))
    assert answered == list(range(100))
    assert [record.offset for record in kept.said] == list(range(1, 101))


async def test_who_gave_up_waiting_does_not_stop_the_change(kept: Kept) -> None:
    task = asyncio.ensure_future(kept.store.write(take_note, "hello"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await kept.store.write(take_note, "after")
    assert kept.notes() == ["hello", "after"]
    assert [record.offset for record in kept.said] == [1, 2]


async def test_what_was_accepted_is_finished_before_it_closes(kept: Kept) -> None:
    writes = [asyncio.ensure_future(kept.store.write(take_note, str(number))) for number in range(50)]
    await asyncio.sleep(0)
    await kept.store.close()
    assert await asyncio.gather(*writes) == [str(number) for number in range(50)]
    assert len(kept.said) == 50


async def test_a_closed_store_says_so(kept: Kept) -> None:
    await kept.store.close()
    await kept.store.close()
    with pytest.raises(Closed):
        await kept.store.write(take_note, "late")
    with pytest.raises(Closed):
        await kept.store.read(lambda tx: tx.position("lobby"))
    with pytest.raises(Closed):
        await kept.store.page("lobby", 0)


async def test_when_too_much_waits_for_the_disk_it_says_so(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert writer.WAITING_CHANGES == 10_000
    monkeypatch.setattr(writer, "WAITING_CHANGES", 3)
    kept = await open_store()
    outcomes = await kept.in_one_batch(*[(take_note, str(number)) for number in range(5)])
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False, False, False, True, True]
    assert kept.notes() == ["0", "1", "2"]
    await kept.store.write(take_note, "later")


async def test_changes_that_wait_together_share_one_commit(kept: Kept, kind: str) -> None:
    if kind == "postgres":
        await kept.in_one_batch(*[(take_note, str(number), f"room-{number}") for number in range(100)])
        assert kept.rows("SELECT count(DISTINCT xid) FROM holdfast_log") == [(1,)]
    else:
        statements: list[str] = []
        kept.store._connection.set_trace_callback(statements.append)
        await kept.in_one_batch(*[(take_note, str(number)) for number in range(100)])
        assert sum(each.startswith("COMMIT") for each in statements) == 2  # the one that held them up, and theirs
    assert kept.told == [100]


async def test_nothing_is_answered_or_dispatched_before_the_commit(kept: Kept) -> None:
    seen: list[int] = []

    def look(tx: Transaction) -> None:
        seen.append(len(kept.log()))
        seen.append(len(kept.said))

    await kept.in_one_batch((take_note, "a"), (take_note, "b"), (look,))
    assert seen == [0, 0]
    assert len(kept.said) == 2


async def test_a_commit_that_fails_as_nobody_foresaw_is_told_and_the_next_is_done(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, jobs: object) -> None:
        raise RuntimeError("nobody foresaw this")

    with monkeypatch.context() as patch:
        patch.setattr(commit.Committer, "_until_nobody_is_first", broken)
        with pytest.raises(StoreError, match="nobody foresaw"):
            await kept.store.write(take_note, "lost")
    await kept.store.write(take_note, "kept")
    assert kept.notes() == ["kept"]


class SlowToStop(InlineWorker):
    """One that is still at something when it is told to end."""

    async def stop(self) -> None:
        """Let it finish what it is at, and end."""
        await asyncio.sleep(10 * ASIDE_SECONDS)
        await super().stop()


def test_what_is_put_aside_when_it_closes_is_tried_once_more_and_only_once() -> None:
    loop = VirtualLoop()
    tried: list[int] = []

    def held(jobs: list[Job]) -> list[Outcome | BaseException]:
        tried.append(len(jobs))
        return [Later("held") for _ in jobs]

    async def close() -> None:
        writer = Writer(SlowToStop())
        writer.start(held, lambda outcomes: None)
        waiting = asyncio.ensure_future(writer.commit(take_note, ("late",), {}, None))
        await asyncio.sleep(ASIDE_SECONDS / 2)
        assert tried == [1]
        await writer.stop()
        assert tried == [1, 1]
        with pytest.raises(Unavailable, match="held"):
            await waiting
        assert tried == [1, 1]

    loop.run_until_complete(close())
    loop.close()


def test_what_is_put_aside_waits_with_the_others_for_those_who_come_to_be_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "WAITING_CHANGES", 3)
    loop = VirtualLoop()

    async def crowd() -> None:
        those = Writer(InlineWorker())
        those.start(lambda jobs: [Later("held") for _ in jobs], lambda outcomes: None)
        aside = [asyncio.ensure_future(those.commit(take_note, (str(number),), {}, None)) for number in range(3)]
        await asyncio.sleep(ASIDE_SECONDS / 2)
        with pytest.raises(Unavailable, match="3 changes are waiting"):
            await those.commit(take_note, ("one more",), {}, None)
        await asyncio.gather(*aside, return_exceptions=True)

    loop.run_until_complete(crowd())
    loop.close()


def test_what_is_put_aside_is_tried_ever_later_for_as_long_as_a_change_may_take() -> None:
    loop = VirtualLoop()
    tried: list[float] = []

    def held(jobs: list[Job]) -> list[Outcome | BaseException]:
        tried.append(loop.time())
        return [Later("held") for _ in jobs]

    async def ask() -> None:
        writer = Writer(InlineWorker())
        writer.start(held, lambda outcomes: None)
        with pytest.raises(Unavailable, match="held"):
            await writer.commit(take_note, ("late",), {}, None)

    loop.run_until_complete(ask())
    loop.close()
    waits = [after - before for before, after in pairwise(tried)]
    assert waits[:4] == pytest.approx([ASIDE_SECONDS * 2**number for number in range(4)])
    assert tried[-1] - tried[0] == pytest.approx(CHANGE_SECONDS)
