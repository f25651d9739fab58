"""A room's log says what it holds, and is read in pages without holes."""

from __future__ import annotations

from holdfast.core.ready import CHUNK_BYTES, Span
from holdfast.store.store import Transaction
from store.conftest import Kept, take_note


async def test_the_span_says_what_the_log_has(kept: Kept) -> None:
    assert await kept.store.span("lobby") == Span(1, 0)
    for text in "abc":
        await kept.store.write(take_note, text)
    assert await kept.store.span("lobby") == Span(1, 3)
    assert await kept.store.span("kitchen") == Span(1, 0)
    await kept.store.write(lambda tx: tx.execute('DELETE FROM holdfast_log WHERE "offset" < 3'))
    assert await kept.store.span("lobby") == Span(3, 3)
    await kept.store.write(lambda tx: tx.execute("DELETE FROM holdfast_log"))
    assert await kept.store.span("lobby") == Span(4, 3)


async def test_pages_follow_each_other_without_holes(kept: Kept) -> None:
    def change(tx: Transaction) -> None:
        for number in range(600):
            tx.publish("lobby", "noted", {"n": number})
            tx.publish("kitchen", "noted", {"n": -number})

    await kept.store.write(change)
    after, pages = 0, []
    while page := await kept.store.page("lobby", after):
        assert [record.offset for record in page] == list(range(after + 1, after + 1 + len(page)))
        assert {record.room for record in page} == {"lobby"}
        after = page[-1].offset
        pages.append(len(page))
    assert pages == [256, 256, 88]
    assert await kept.store.page("nowhere", 0) == []


async def test_a_page_is_about_a_chunk_and_has_at_least_one(kept: Kept) -> None:
    for size in (40_000, 30_000, 60_000, 5_000, 60_000):
        await kept.store.write(lambda tx, size=size: tx.publish("lobby", "noted", {"text": "x" * size}))
    pages = [[record.offset for record in await kept.store.page("lobby", after)] for after in range(5)]
    assert pages == [[1], [2], [3, 4], [4, 5], [5]]
    for after in range(5):
        page = await kept.store.page("lobby", after)
        assert len(page) == 1 or sum(len(record.body) for record in page) <= CHUNK_BYTES


async def test_a_page_of_a_trimmed_log_begins_with_the_first_that_is_left(kept: Kept) -> None:
    for text in "abcde":
        await kept.store.write(take_note, text)
    await kept.store.write(lambda tx: tx.execute('DELETE FROM holdfast_log WHERE "offset" <= 3'))
    assert [record.offset for record in await kept.store.page("lobby", 1)] == [4, 5]
    assert await kept.store.page("lobby", 5) == []
