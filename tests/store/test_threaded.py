"""Changes have one thread, queries some, and the log its own."""

from __future__ import annotations

import asyncio
import threading

from store.conftest import OpenStore, take_note


async def test_who_joins_waits_for_no_slow_query(open_store: OpenStore) -> None:
    kept = await open_store()
    await kept.store.write(take_note, "hello")
    enough = threading.Event()
    slow = [asyncio.create_task(kept.store.read(lambda tx: enough.wait(4.0))) for _ in range(10)]
    assert [record.offset for record in await kept.store.page("lobby", 0)] == [1]
    assert (await kept.store.span("lobby")).head == 1
    enough.set()
    assert all(await asyncio.gather(*slow))
