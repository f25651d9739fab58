"""
A message that carries a key takes effect once, however often it comes, and is answered the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient

from holdfast import Conflict, Hub, ReadTransaction, Request, Transaction, User
from peers import Server

APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Hub

hub = Hub("count.db", migrations=["CREATE TABLE count (n INTEGER)", "INSERT INTO count VALUES (0)"])

def add(tx) -> int:
    tx.execute("UPDATE count SET n = n + 1")
    return tx.one("SELECT n FROM count")["n"]

@hub.on("add")
async def handle(request):
    return {"n": await hub.write(add), "id": (await hub.publish("lobby", "added", {})).id}

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub("memory:", migrations=["CREATE TABLE note (text TEXT)"]) as hub:

        def take(tx: Transaction, text: str) -> int:
            tx.execute("INSERT INTO note VALUES (?)", (text,))
            row = tx.one("SELECT count(*) AS n FROM note")
            assert row is not None
            return int(row["n"])

        def refuse(tx: Transaction) -> None:
            raise Conflict("not now")

        @hub.on("note")
        async def note(request: Request) -> Any:
            first = await hub.write(take, request.data["text"])
            second = await hub.write(take, request.data["text"])
            published = await hub.publish("lobby", "noted", {"text": request.data["text"]})
            return {"first": first, "second": second, "id": published.id, "data": published.data}

        @hub.on("refused")
        async def refused(request: Request) -> None:
            await hub.write(take, "undone?")
            await hub.write(refuse)

        yield hub


async def notes(hub: Hub) -> int:
    return int((await hub.read(lambda tx: tx.one("SELECT count(*) AS n FROM note")))["n"])  # type: ignore[index]


async def send(hub: Hub, user: str | None = "alice", **message: Any) -> Any:
    headers = {} if user is None else {"authorization": f"Bearer {hub.token(User(user, user.title()))}"}
    async with AsyncClient(transport=ASGITransport(hub.app), base_url="http://localhost") as client:
        return await client.post("/send", json=message, headers=headers)


async def test_a_message_with_a_key_takes_effect_once(hub: Hub) -> None:
    answers = [(await send(hub, type="note", text="x", key="k")).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["data"] == {"first": 1, "second": 2, "id": f"{hub.opened.store.epoch}:1", "data": {"text": "x"}}
    assert await notes(hub) == 2
    assert (await hub.read(lambda tx: tx.position("lobby"))).offset == 1


async def test_without_a_key_or_with_another_it_is_another_message(hub: Hub) -> None:
    for key in (None, None, "a", "b"):
        await send(hub, type="note", text="x", **({} if key is None else {"key": key}))
    assert await notes(hub) == 8


async def test_a_key_is_its_users_and_those_without_a_name_share_theirs(hub: Hub) -> None:
    for user in ("alice", "bob", None, None):
        await send(hub, user, type="note", text="x", key="k")
    assert await notes(hub) == 6


@pytest.mark.parametrize(
    "other", [{"text": "y"}, {"room": "attic"}, {"type": "refused"}], ids=lambda other: next(iter(other))
)
async def test_one_key_for_two_messages_is_a_mistake(hub: Hub, other: dict[str, str]) -> None:
    message = {"type": "note", "room": "lobby", "text": "x", "key": "k"}
    await send(hub, **message)
    answer = await send(hub, **{**message, **other})
    assert (answer.status_code, "another command" in answer.json()["error"]) == (422, True)
    assert await notes(hub) == 2


async def test_a_retry_may_name_its_fields_in_another_order(hub: Hub) -> None:
    first = await send(hub, type="note", text="x", at={"x": 1, "y": 2}, key="k")
    again = await send(hub, key="k", at={"y": 2, "x": 1}, text="x", type="note")
    assert (again.status_code, again.json()) == (200, first.json())
    assert await notes(hub) == 2


async def test_a_refusal_is_answered_again(hub: Hub) -> None:
    answers = [await send(hub, type="refused", key="k") for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(409, {"error": "not now"})] * 2
    assert await notes(hub) == 1


async def test_over_a_websocket_and_after_kill_9_too(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(APP)
    with Server(tmp_path, "serve", "count:app") as server:
        async with await server.dial("/ws") as peer:
            token = (await peer.until("connected"))["token"]
            message = {"type": "add", "ref": 1, "key": "k"}
            await peer.send(message)
            first = await peer.until("reply")
            assert (first["ok"], first["data"]["n"]) == (True, 1)
            await peer.send(message)
            assert await peer.until("reply") == first
        server.kill()
        server.start()
        async with await server.dial(f"/ws?token={token}") as peer:
            await peer.send(message)
            assert await peer.until("reply") == first
            await peer.send({"type": "add", "ref": 2})
            assert (await peer.until("reply"))["data"]["n"] == 2


async def test_a_retry_that_goes_another_way_does_what_was_not_done_yet(hub: Hub) -> None:
    def exists(tx: ReadTransaction) -> bool:
        return tx.one("SELECT 1 FROM note WHERE text = 'account'") is not None

    def create(tx: Transaction) -> str:
        tx.execute("INSERT INTO note VALUES ('account')")
        return "created"

    def add(tx: Transaction) -> str:
        tx.execute("INSERT INTO note VALUES ('money')")
        return "added"

    failures = iter([True, True, False])

    @hub.on("pay")
    async def pay(request: Request) -> Any:
        if not await hub.read(exists):
            await hub.write(create)
        if next(failures, False):
            raise RuntimeError("the power of this moment is gone")
        return await hub.write(add)

    for _ in range(2):
        with pytest.raises(RuntimeError):
            await send(hub, type="pay", key="k")
    for _ in range(3):
        assert (await send(hub, type="pay", key="k")).json() == {"data": "added"}
    assert await notes(hub) == 2


async def test_one_key_for_messages_of_two_types_is_a_mistake_too(hub: Hub) -> None:
    await send(hub, type="note", text="x", key="k")

    @hub.on("other")
    async def other(request: Request) -> None:
        await hub.write(lambda tx: tx.execute("DELETE FROM note"))

    assert (await send(hub, type="other", key="k")).status_code == 422
    assert await notes(hub) == 2
