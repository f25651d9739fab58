"""A reader of several rooms begins where all of them stand at one moment."""

from __future__ import annotations

import pytest

from holdfast import Hub, User
from holdfast.core.ready import Span
from holdfast.server.auth import Identity


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
