"""Who comes while a server ends, or while it is full, is told so, and when to come back."""

from __future__ import annotations

from holdfast import Hub
from holdfast.server.door import Door


async def test_while_a_server_ends_nobody_is_let_in() -> None:
    async with Hub("memory:") as hub:
        hands = hub.opened.hands
        door = Door(hands)
        assert door.refusal() is None
        hands.refuses = "the server restarts"
        goodbye = door.refusal()
        assert goodbye is not None
        assert goodbye.reason == "the server restarts"
        assert goodbye.after_ms == 2000


async def test_who_has_no_place_to_go_is_told_that_the_server_is_full() -> None:
    async with Hub("memory:") as hub:
        goodbye = Door(hub.opened.hands).refusal(places=False)
        assert goodbye is not None
        assert goodbye.reason == "the server is full"
