"""
The other roads: event stream, long poll, short poll; one cursor for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec
import pytest

from peers import Server, StartBoard


class Stream:
    """An event stream, read as an EventSource does (HTML standard, 9.2.6)."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []

    async def next(self, seconds: float = 5.0) -> tuple[str, Any]:
        """Return the next event: its name and its data."""
        name, data = "message", []
        async with asyncio.timeout(seconds):
            async for line in self._lines:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match field:
                    case "" if line:
                        self.comments.append(value)
                    case "event":
                        name = value
                    case "data":
                        data.append(value)
                    case "id":
                        self.last_id = value
                    case "retry":
                        self.retry = int(value)
                    case "" if data:
                        return name, msgspec.json.decode("\n".join(data))
        raise EOFError


@asynccontextmanager
async def stream(server: Server, path: str, **headers: str) -> AsyncIterator[Stream]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client,
        client.stream("GET", path, headers=sent) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-transform" in response.headers["cache-control"]
        opened = Stream(response)
        assert await opened.next() == ("message", {"type": "connected"})
        assert opened.retry
        yield opened


async def test_an_event_stream_names_events_and_numbers_them(board: Server) -> None:
    async with stream(board, "/boards/board-1/events") as events:
        task = await board.new_task()
        name, data = await events.next()
        assert name == "task_created"
        assert list(data) == ["type", "boardId", "id", "task"]
        assert (data["task"], data["id"]) == (task, events.last_id)


async def test_a_stream_that_returns_with_its_last_id_misses_nothing(board: Server) -> None:
    async with stream(board, "/boards/board-1/events") as events:
        await board.new_task("seen")
        await events.next()
        last = events.last_id
    missed = [(await board.new_task(str(n)))["id"] for n in range(300)]
    async with stream(board, "/boards/board-1/events", last_event_id=last) as events:
        assert [(await events.next())[1]["task"]["id"] for _ in missed] == missed


async def test_a_stream_that_has_seen_nothing_yet_can_return_too(board: Server) -> None:
    async with stream(board, "/boards/board-2/events") as events:
        with pytest.raises(TimeoutError):
            await events.next(0.3)  # reading is what takes the id in
        last = events.last_id
    assert last
    list_id = (await board.get("/boards/board-2"))["data"]["lists"][0]["id"]
    task = await board.new_task("missed", list_id)
    async with stream(board, "/boards/board-2/events", last_event_id=last) as events:
        assert (await events.next())[1]["task"] == task


async def test_one_stream_carries_several_boards_with_one_cursor(board: Server) -> None:
    list_id = (await board.get("/boards/board-2"))["data"]["lists"][0]["id"]
    async with stream(board, "/events?boards=board-1,board-2") as events:
        await board.new_task("one")
        await board.new_task("two", list_id)
        seen = [(await events.next())[1]["boardId"] for _ in range(2)]
        assert sorted(seen) == ["board-1", "board-2"]
        last = events.last_id
        assert "board-1=" in last
        assert "board-2=" in last
    missed = [await board.new_task("three"), await board.new_task("four", list_id)]
    async with stream(board, "/events?boards=board-1,board-2", last_event_id=last) as events:
        got = [(await events.next())[1]["task"]["id"] for _ in missed]
        assert sorted(got) == sorted(task["id"] for task in missed)


async def test_a_gap_is_told_in_the_stream(board: Server) -> None:
    async with stream(board, "/boards/board-1/events", last_event_id="other:7") as events:
        name, data = await events.next()
        assert (name, data["reason"], data["boardId"]) == ("resync", "epoch", "board-1")
        task = await board.new_task()
        assert (await events.next())[1]["task"] == task


async def test_a_long_poll_is_held_until_something_happens(board: Server) -> None:
    began = time.monotonic()
    polling = asyncio.create_task(board.get("/boards/board-1/poll"))
    await asyncio.sleep(0.5)
    task = await board.new_task()
    answer = await polling
    assert 0.4 < time.monotonic() - began < 3
    assert list(answer) == ["data", "cursor", "timestamp"]
    assert [event["task"] for event in answer["data"]] == [task]
    assert answer["cursor"] == answer["data"][0]["id"]


async def test_nothing_is_lost_between_two_polls(board: Server) -> None:
    cursor = (await board.get("/boards/board-1/tasks"))["cursor"]
    made = [(await board.new_task(str(n)))["id"] for n in range(20)]
    got: list[str] = []
    while len(got) < len(made):
        answer = await board.get(f"/boards/board-1/poll?cursor={cursor}")
        got += [event["task"]["id"] for event in answer["data"]]
        cursor = answer["cursor"]
    assert got == made


async def test_a_gap_is_answered_at_once(board: Server) -> None:
    answer = await board.get("/boards/board-1/poll?cursor=other:7")
    assert list(answer) == ["data", "resync", "cursor"]
    assert (answer["data"], answer["resync"]) == ([], {"reason": "epoch"})
    head = (await board.get("/boards/board-1/tasks"))["cursor"]
    assert answer["cursor"] == head


async def test_a_short_poll_tells_what_changed_since(board: Server) -> None:
    everything = await board.get("/boards/board-1/updates")
    assert list(everything) == ["data", "timestamp"]
    tasks = (await board.get("/boards/board-1/tasks"))["data"]
    assert everything["data"] == tasks
    assert (await board.get(f"/boards/board-1/updates?since={everything['timestamp']}"))["data"] == []
    task = await board.new_task()
    changed = await board.get(f"/boards/board-1/updates?since={everything['timestamp']}")
    assert changed["data"] == [task]
    assert changed["timestamp"] == task["updatedAt"]


async def test_a_short_poll_with_a_cursor_tells_of_deletions_too(board: Server) -> None:
    cursor = (await board.get("/boards/board-1/tasks"))["cursor"]
    task = await board.new_task()
    await board.request("DELETE", f"/tasks/{task['id']}")
    answer = await board.get(f"/boards/board-1/updates?cursor={cursor}")
    assert list(answer) == ["data", "cursor", "timestamp"]
    assert [event["type"] for event in answer["data"]] == ["task_created", "task_deleted"]
    assert (await board.get(f"/boards/board-1/updates?cursor={answer['cursor']}"))["data"] == []


async def test_the_time_that_comes_with_a_page_skips_nothing_that_comes_after_it(board: Server) -> None:
    cursor = (await board.get("/boards/board-1/tasks"))["cursor"]
    made = [await board.new_task(f"number {n}") for n in range(300)]
    first = await board.get(f"/boards/board-1/updates?cursor={cursor}")
    assert 0 < len(first["data"]) < 300
    assert first["timestamp"] == first["data"][-1]["task"]["updatedAt"]
    rest = await board.get(f"/boards/board-1/updates?since={first['timestamp']}")
    assert [task["id"] for task in rest["data"]] == [task["id"] for task in made[len(first["data"]) :]]
    held = await board.get(f"/boards/board-1/poll?cursor={cursor}")
    assert held["timestamp"] == first["timestamp"]


async def test_a_poll_whose_client_has_gone_is_not_counted(board: Server) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", board.port)
    writer.write(b"GET /boards/board-1/poll HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while (await board.get("/admin/connections"))["data"]["total"] == 0:
        await asyncio.sleep(0.02)
    writer.close()
    async with asyncio.timeout(2):
        while (await board.get("/admin/connections"))["data"]["total"] > 0:
            await asyncio.sleep(0.02)


async def test_a_cursor_walks_every_road(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.join()
        await board.new_task("by WebSocket")
        cursor = (await peer.until("task_created"))["id"]
    titles = ["by stream", "by long poll", "by short poll", "by WebSocket again"]
    await board.new_task(titles[0])
    async with stream(board, "/boards/board-1/events", last_event_id=cursor) as events:
        seen = [(await events.next())[1]["task"]["title"]]
        cursor = events.last_id
    for title, path in ((titles[1], "poll"), (titles[2], "updates")):
        await board.new_task(title)
        answer = await board.get(f"/boards/board-1/{path}?cursor={cursor}")
        seen += [event["task"]["title"] for event in answer["data"]]
        cursor = answer["cursor"]
    await board.new_task(titles[3])
    async with await board.dial() as peer:
        await peer.join(since=cursor)
        seen.append((await peer.until("task_created"))["task"]["title"])
        await peer.silence(0.2)
    assert seen == titles


async def test_a_cursor_walks_every_road_again_and_again_while_events_flow(start_board: StartBoard) -> None:
    board = start_board()
    made: list[str] = []

    async def go_on_for_ever() -> None:
        while True:
            task = await board.new_task(f"number {len(made)}", ["list-todo", "list-doing", "list-done"][len(made) % 3])
            made.append(task["id"])

    cursor = (await board.get("/boards/board-1/tasks"))["cursor"]
    first = int(cursor.partition(":")[2]) + 1
    working = asyncio.create_task(go_on_for_ever())
    seen: list[str] = []
    ids: list[int] = []

    def take(event: Any) -> str:
        seen.append(event["task"]["id"])
        ids.append(int(event["id"].partition(":")[2]))
        return str(event["id"])

    async with asyncio.timeout(60):
        for _ in range(8):
            async with await board.dial() as peer:
                await peer.join(since=cursor)
                for _ in range(5):
                    cursor = take(await peer.until("task_created"))
            async with stream(board, "/boards/board-1/events", last_event_id=cursor) as events:
                for _ in range(5):
                    take((await events.next())[1])
                    cursor = events.last_id
            for path in ("poll", "poll", "updates", "updates"):
                answer = await board.get(f"/boards/board-1/{path}?cursor={cursor}")
                for event in answer["data"]:
                    take(event)
                cursor = answer["cursor"]
    working.cancel()
    assert ids == list(range(first, first + len(ids)))
    assert seen[: len(made)] == made[: len(seen)]  # the newest may be seen before its maker is answered
    assert len(seen) > 80


async def test_listeners_are_counted_and_not_present(board: Server) -> None:
    async with stream(board, "/boards/board-1/events") as events, await board.dial() as peer:
        joined = await peer.join()
        assert joined["roomSize"] == 1
        await board.new_task()
        await events.next()  # so it is there
        counts = (await board.get("/admin/connections"))["data"]
        assert counts == {"total": 2, "boards": {"board-1": {"websocket": 1, "sse": 1, "poll": 0}}}


async def test_sigterm_tells_everybody_and_ends_soon(start_board: StartBoard) -> None:
    server = start_board()
    polling = asyncio.create_task(server.request("GET", "/boards/board-1/poll"))
    async with stream(server, "/boards/board-1/events") as events, await server.dial() as peer:
        await peer.join()
        began = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        goodbye = await peer.until("goodbye")
        assert list(goodbye) == ["type", "reason", "after_ms", "spread_ms"]
        assert (goodbye["after_ms"], goodbye["spread_ms"]) == (2000, 1000)
        assert await peer.closed() == 1012
        assert (await events.next())[0] == "goodbye"
        assert (await polling).json()["timeout"] is True
        await stopping
        assert time.monotonic() - began < 5
