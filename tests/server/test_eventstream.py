"""
An event stream, followed message by message: it misses nothing from its first word on, and is let go of in every case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from httpx2 import ASGITransport, AsyncClient

from holdfast import Hub, User

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Stream:
    """A request for an event stream, and what was answered."""

    def __init__(self, hub: Hub, method: str = "GET", headers: dict[str, str] | None = None, **query: str) -> None:
        self.hub = hub
        self.blocks: list[str] = []
        self.started: dict[str, Any] = {}
        self.on_send: Send | None = None
        self._more = asyncio.Event()
        self._gone = asyncio.Event()
        self.scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": "/events",
            "raw_path": b"/events", "root_path": "", "query_string": urlencode(query).encode(),
            "headers": [(b"host", b"localhost"), *((k.encode(), v.encode()) for k, v in (headers or {}).items())],
            "client": ("127.0.0.1", 1), "server": ("localhost", 80), "extensions": {}, "asgi": {"version": "3.0"},
        }  # fmt: skip

    async def run(self) -> None:
        await self.hub.app(self.scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = message
        self.blocks += [block for block in message.get("body", b"").decode().split("\n\n") if block]
        self._more.set()
        if self.on_send is not None:
            await self.on_send(message)

    async def until(self, found: Callable[[str], bool]) -> str:
        """Return the first block that is it."""
        async with asyncio.timeout(5):
            while True:
                for block in self.blocks:
                    if found(block):
                        return block
                self._more.clear()
                await self._more.wait()

    def leave(self) -> None:
        self._gone.set()


@asynccontextmanager
async def running(stream: Stream) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(stream.run())
    try:
        yield task
    finally:
        stream.leave()
        await asyncio.wait((task,), timeout=2)
        assert task.done()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub("memory:", require_login=False) as hub:
        yield hub


async def test_what_happens_after_the_first_word_is_in_the_stream(hub: Hub) -> None:
    stream = Stream(hub, room="lobby")
    said = False

    async def publish_at_the_first_word(message: dict[str, Any]) -> None:
        nonlocal said
        if not said and b"connected" in message.get("body", b""):
            said = True
            await hub.publish("lobby", "message", {"text": "early"})

    stream.on_send = publish_at_the_first_word
    async with running(stream):
        assert "early" in await stream.until(lambda block: "event: message" in block)


async def test_a_stream_that_breaks_at_its_first_byte_is_not_counted(hub: Hub) -> None:
    stream = Stream(hub, room="lobby")

    async def broken(message: dict[str, Any]) -> None:
        raise OSError("the client has gone")

    stream.on_send = broken
    with suppress(Exception):
        await stream.run()
    assert (hub.connection_count(), hub.listeners()) == (0, {})


async def test_a_stream_that_is_cancelled_while_the_store_is_asked_is_not_counted(hub: Hub) -> None:
    async def never(room: str) -> Any:
        await asyncio.Event().wait()

    hub.opened.hands.span = never  # type: ignore[method-assign]
    task = asyncio.create_task(Stream(hub, room="lobby").run())
    await asyncio.sleep(0.05)
    assert hub.connection_count() == 1
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (hub.connection_count(), hub.listeners()) == (0, {})


async def test_whoever_is_cut_off_before_a_gap_is_told_hears_of_it_again(hub: Hub) -> None:
    await hub.publish("lobby", "message", {})
    stream = Stream(hub, "GET", {"last-event-id": "other:7"}, room="lobby")
    async with running(stream):
        gap = await stream.until(lambda block: "event: resync" in block)
        before = stream.blocks[: stream.blocks.index(gap)]
        assert not any(block.startswith("id:") for block in before)
        assert gap.startswith("id: ")
    both = Stream(hub, "GET", {"last-event-id": "other:lobby=7;attic=1"}, rooms="lobby,attic")
    async with running(both):
        await both.until(lambda block: "event: resync" in block and "attic" in block)
        gaps = [block for block in both.blocks if "event: resync" in block]
        assert [block.startswith("id: ") for block in gaps] == [False, True]


async def test_a_cursor_of_other_rooms_only_is_refused(hub: Hub) -> None:
    stream = Stream(hub, "GET", {"last-event-id": f"{hub.opened.store.epoch}:attic=0"}, room="lobby")
    await stream.run()
    assert stream.started["status"] == 400


async def test_a_stream_ends_when_its_token_expires(hub: Hub) -> None:
    token = hub.token(User("alice", "Alice"), 1.5)
    stream = Stream(hub, "GET", {"authorization": f"Bearer {token}"}, room="lobby")
    began = time.monotonic()
    async with running(stream) as task:
        goodbye = await stream.until(lambda block: "event: goodbye" in block)
        assert "the token has expired" in goodbye
        assert 1.4 < time.monotonic() - began < 3.2  # a token counts in whole seconds
        await task
    assert hub.connection_count() == 0


async def test_a_user_who_is_disconnected_or_removed_reads_nothing_more(hub: Hub) -> None:
    for leave in (lambda: hub.disconnect("alice"), lambda: hub.remove("alice", "lobby")):
        token = hub.token(User("alice", "Alice"))
        stream = Stream(hub, "GET", {"authorization": f"Bearer {token}"}, room="lobby")
        async with running(stream) as task:
            await stream.until(lambda block: "connected" in block)
            await leave()
            assert "asked to leave" in await stream.until(lambda block: "event: goodbye" in block)
            await task


async def test_who_is_removed_from_any_of_the_rooms_of_a_stream_reads_nothing_more(hub: Hub) -> None:
    for room in ("lobby", "attic"):
        token = hub.token(User("alice", "Alice"))
        stream = Stream(hub, "GET", {"authorization": f"Bearer {token}"}, rooms="lobby,attic")
        async with running(stream) as task:
            await stream.until(lambda block: "connected" in block)
            await hub.remove("alice", room)
            await hub.publish(room, "message", {"text": "secret"})
            last = await stream.until(lambda block: "event: goodbye" in block or "secret" in block)
            assert "asked to leave" in last
            await task
        assert "secret" not in "".join(stream.blocks)


async def test_a_look_at_the_headers_opens_no_stream(hub: Hub) -> None:
    stream = Stream(hub, "HEAD", room="lobby")
    await stream.run()
    assert (stream.started["status"], hub.connection_count()) == (200, 0)


async def test_rooms_whose_cursor_would_be_too_long_are_refused_and_not_given_one(hub: Hub) -> None:
    rooms = ",".join(quote(quote("💣" * 127 + str(number))) for number in range(3))
    async with AsyncClient(transport=ASGITransport(hub.app), base_url="http://localhost") as client:
        for path in ("/events", "/poll"):
            answer = await client.get(f"{path}?rooms={rooms}&wait=0")
            assert (answer.status_code, "too long for one cursor" in answer.json()["error"]) == (400, True)


async def test_a_poll_is_held_no_longer_than_it_asks_for(hub: Hub) -> None:
    async with AsyncClient(transport=ASGITransport(hub.app), base_url="http://localhost") as client:
        for room in ("room", "rooms"):
            async with asyncio.timeout(5):
                answer = await client.get(f"/poll?{room}=lobby&wait=0")
            assert (answer.status_code, answer.json()["data"]) == (200, [])
            assert "wait must be" in (await client.get(f"/poll?{room}=lobby&wait=31")).json()["error"]
