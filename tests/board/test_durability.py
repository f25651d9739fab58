"""
What was acknowledged is there after `kill -9`, with its publication; and nothing is there without.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx2
import pytest

from peers import Server, StartBoard


async def write_until_killed(server: Server, acknowledged: list[str], writer: int) -> None:
    async with httpx2.AsyncClient(base_url=server.url, timeout=20, trust_env=False) as client:
        for n in range(100_000):
            try:
                answer = await client.post("/tasks", json={"listId": "list-todo", "title": f"{writer}-{n}"})
            except httpx2.HTTPError:
                return
            if answer.status_code == 409:  # the list is full
                return
            assert answer.status_code == 201
            acknowledged.append(answer.json()["data"]["id"])


async def published(server: Server, cursor: str) -> list[dict[str, Any]]:
    """Return everything in the log after a cursor."""
    events: list[dict[str, Any]] = []
    while True:
        answer = await server.get(f"/boards/board-1/updates?cursor={cursor}")
        if not answer["data"]:
            return events
        events += answer["data"]
        cursor = answer["cursor"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
async def test_kill_9_during_a_stream_of_writes_loses_nothing_acknowledged(start_board: StartBoard, seed: int) -> None:
    server = start_board()
    epoch = (await server.get("/boards/board-1/tasks"))["cursor"].partition(":")[0]
    acknowledged: list[str] = []
    writers = [asyncio.create_task(write_until_killed(server, acknowledged, n)) for n in range(8)]
    enough = random.Random(seed).randint(20, 300)
    async with asyncio.timeout(30):
        while len(acknowledged) < enough:
            await asyncio.sleep(0)
    server.kill()
    await asyncio.gather(*writers)
    server.start()
    after = await server.get("/boards/board-1/tasks")
    assert after["cursor"].partition(":")[0] == epoch
    there = [task["id"] for task in after["data"]]
    assert set(acknowledged) <= set(there)
    events = await published(server, f"{epoch}:0")
    assert [int(event["id"].partition(":")[2]) for event in events] == list(range(1, len(events) + 1))
    assert sorted(event["task"]["id"] for event in events if event["type"] == "task_created") == sorted(there)


async def test_a_retry_after_kill_9_gets_the_first_answer(start_board: StartBoard) -> None:
    server = start_board()
    command = {"listId": "list-todo", "title": "once"}
    first = await server.post("/tasks", command, idempotency_key="k")
    server.kill()
    server.start()
    assert await server.post("/tasks", command, idempotency_key="k") == first
    assert [task["title"] for task in (await server.get("/boards/board-1/tasks"))["data"]].count("once") == 1
