"""A reader begins where its rooms stand at one moment, and misses nothing of what comes while the store is asked."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from typing import Any

import msgspec
import pytest

from holdfast import Hub, Limits, Transaction, User
from holdfast.core.ready import Span
from holdfast.protocol import cursor
from holdfast.protocol.cursor import Cursor, decode_cursor
from holdfast.server.auth import Identity
from holdfast.server.follow import Event, Gap
from holdfast.store import retention


async def test_what_comes_while_other_rooms_are_opened_is_before_where_a_new_reader_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Hub("memory:") as hub:
        hands = hub.opened.hands
        real = hands.span

        async def span(room: str) -> Span:
            if room == "kitchen":
                await hub.publish("lobby", "said", {})
            return await real(room)

        monkeypatch.setattr(hands, "span", span)
        rooms, ann = ("lobby", "kitchen"), Identity(User("ann", "Ann"))
        async with hub.opened.follow(ann, rooms, None, "poll", multiplexed=True) as follow:
            assert follow.cursor.endswith("lobby=1;kitchen=0")
            assert await follow.take() == []


async def test_of_a_reader_who_has_gone_nothing_is_left() -> None:
    async with Hub("memory:") as hub:
        hands, ann = hub.opened.hands, Identity(User("ann", "Ann"), expires=time.time() + 3600)
        async with hub.opened.follow(ann, ("lobby", "kitchen"), None, "sse", multiplexed=True) as follow:
            assert hands.followers.keys() == {"lobby", "kitchen"}
        assert hands.followers == hands.streams == {}
        assert hands.mind.room("lobby") is None
        assert follow._expiry is not None
        assert follow._expiry.cancelled()


async def test_what_comes_while_the_store_is_asked_is_read_by_all_who_have_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Hub("memory:") as hub:
        look = hub.opened.store.span

        async def span(room: str) -> Span:
            before = await look(room)
            await hub.publish(room, "said", {})
            return before

        async def read() -> int:
            begin, ann = Cursor(hub.opened.store.epoch, None, {"lobby": 0}), Identity(User("ann", "Ann"))
            async with hub.opened.follow(ann, ("lobby",), begin, "poll", multiplexed=True) as follow:
                return len(await follow.take())

        monkeypatch.setattr(hub.opened.store, "span", span)
        assert await read() == 1
        assert await asyncio.gather(read(), read()) == [2, 2]


async def test_a_page_of_one_room_costs_what_is_in_it_and_not_as_often_all_rooms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quoted: list[str] = []

    def quote(name: str, **options: str) -> str:
        quoted.append(name)
        return urllib.parse.quote(name, **options)

    def fill(tx: Transaction) -> None:
        for room in rooms:
            for number in range(200):
                tx.publish(room, "said", {"n": number})

    rooms, ann = tuple(f"room {number}" for number in range(32)), Identity(User("ann", "Ann"))
    async with Hub("memory:") as hub:
        epoch = hub.opened.store.epoch
        await hub.write(fill)
        monkeypatch.setattr(cursor, "quote", quote)
        begin = Cursor(epoch, None, dict.fromkeys(rooms, 0))
        async with hub.opened.follow(ann, rooms, begin, "sse", multiplexed=True) as follow:
            stands, pages = dict.fromkeys(rooms, 0), 0
            while page := await follow.take():
                pages += 1
                for event in page:
                    assert isinstance(event, Event)
                    stands[msgspec.json.decode(event.frame.text)["room"]] += 1
                    assert decode_cursor(event.cursor).offsets == stands
            assert set(stands.values()) == {200}
    assert len(quoted) == 32 * pages
    assert pages < 32 * 200 / 50


def fill_lobby(tx: Transaction) -> None:
    """More than is kept ready for those who are slow."""
    for number in range(300):
        tx.publish("lobby", "said", {"n": number, "x": "x" * 9_000})


async def test_whoever_stands_before_a_log_that_was_trimmed_is_told_of_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FORGET_EVERY", 0.0)
    async with Hub("memory:", limits=Limits(log_records=50)) as hub, asyncio.timeout(20):
        ann = Identity(User("ann", "Ann"))
        async with hub.opened.follow(ann, ("lobby",), None, "sse", multiplexed=True) as follow:
            await hub.write(fill_lobby)
            while (await hub.opened.store.span("lobby")).floor < 250:
                await asyncio.sleep(0.01)
            (gap,) = await follow.take()
            assert isinstance(gap, Gap)
            assert (gap.room, gap.reason, decode_cursor(gap.cursor).offsets) == ("lobby", "trimmed", {"lobby": 300})
            assert await follow.take() == []


async def test_whoever_is_put_out_while_the_store_is_asked_is_given_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Hub("memory:") as hub:
        hands, ann = hub.opened.hands, Identity(User("ann", "Ann"))
        real = hands.page

        async def page(room: str, offset: int) -> Any:
            found = await real(room, offset)
            follow.end("they were put out")
            return found

        async with hub.opened.follow(ann, ("lobby",), None, "sse", multiplexed=True) as follow:
            await hub.write(fill_lobby)
            monkeypatch.setattr(hands, "page", page)
            assert await follow.take() == []
