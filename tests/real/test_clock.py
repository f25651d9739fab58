"""
The wall clock jumps by hours, forward and back, while a server runs, and while it does not: only tokens go by it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from peers import Server
from real.clock import WallClock
from real.people import BOUND, GRACE, app_in, everybody_has, following


async def test_when_the_wall_clock_jumps_nobody_is_lost_and_nothing_is_told_twice(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    texts = []
    with Server(*app_in(tmp_path), env=clock.environment) as server:
        async with following(server.url, 3) as followers, await server.dial() as watcher:
            began = time.monotonic()
            await watcher.send({"type": "join", "room": "lobby"})
            for hours in (6, -6, 0):
                leaver = await server.dial()
                await leaver.send({"type": "join", "room": "lobby"})
                await leaver.until("joined")
                broke = time.monotonic()
                leaver.break_off()
                await clock.jump(server, hours)
                await watcher.until("user_left", GRACE + 3)
                assert time.monotonic() - broke >= GRACE
                texts.append(f"{hours} hours")
                await followers[0].say(texts[-1])
            await everybody_has(followers, texts)
            assert time.monotonic() - began > 2 * BOUND  # all were pinged at each time
            assert [follower.lost_at(began) for follower in followers] == [None] * 3
            assert "holdfast_deaths_total 0" in (await server.get("/state"))["metrics"]
        assert "Traceback" not in server.log.read_text()


@pytest.mark.long
async def test_keys_and_positions_outlive_jumps_of_the_wall_clock_and_tokens_go_by_it(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    server = Server(tmp_path, "board", "--token-lifetime", "3600", env=clock.environment)
    command = {"listId": "list-todo", "title": "once"}
    moved: list[dict[str, Any]] = []
    with server:
        token = (await server.post("/login", {"name": "Alice"}))["data"]["token"]
        who = {"authorization": f"Bearer {token}"}
        cursor = (await server.get("/boards/board-1/tasks"))["cursor"]
        first = await server.post("/tasks", command, idempotency_key="k")
        for hours in (6, -6, 20, 0):  # an answer is kept for 24 hours
            await clock.jump(server, hours)
            assert await server.post("/tasks", command, idempotency_key="k") == first
            position = {"position": len(moved) % 2}
            moved.append((await server.patch(f"/tasks/{first['data']['id']}", {"title": f"{hours}"}))["data"])
            moved.append((await server.patch(f"/tasks/{first['data']['id']}/move",
                                             {"listId": "list-doing", **position}))["data"])  # fmt: skip
            expired = (await server.request("GET", "/boards", **who)).status_code == 401
            assert expired == (hours > 1)
        for hours in (20, -20):  # and it is started again in the meantime
            server.kill()
            clock.set(hours)
            server.start()
            assert await server.post("/tasks", command, idempotency_key="k") == first
        answer = await server.get(f"/boards/board-1/updates?cursor={cursor}")
        assert "resync" not in answer
        assert len(answer["data"]) == 1 + len(moved)
        times = [task["updatedAt"] for task in moved]
        assert times == sorted(set(times))
        assert (await server.request("GET", "/boards", **who)).status_code == 200  # signed by a clock that shows less
