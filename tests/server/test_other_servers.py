"""
The same Hub on servers that know nothing of us: plain ASGI, with what is then promised.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from holdfast import Hub
from holdfast.board.app import create_app
from peers import SRC, Server


class OtherServer(Server):
    """The board on a server of somebody else."""

    def command_line(self, *command: str) -> list[str]:
        (self.folder / "app.py").write_text("from holdfast.board.app import create_app\napp = create_app('board.db')\n")
        self.env["PYTHONPATH"] = f"{SRC}:{self.folder}"
        if command[0] == "hypercorn":
            return [sys.executable, "-m", "hypercorn", "app:app", "--bind", f"localhost:{self.port}"]
        where = ["--host", "localhost", "--port", str(self.port)]
        return [sys.executable, "-m", "uvicorn", "app:app", *where, *command[1:]]


@pytest.fixture(
    scope="module",
    params=[
        ("hypercorn",),
        ("uvicorn",),
        ("uvicorn", "--ws", "holdfast.server.websocket:WebSocketProtocol"),
    ],
    ids=["hypercorn", "uvicorn-stock", "uvicorn-with-our-class"],
)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with OtherServer(tmp_path_factory.mktemp("other"), *request.param) as server:
        yield server


async def test_rooms_work_on_any_server(other: Server) -> None:
    async with await other.dial() as one, await other.dial() as two:
        cursor = (await one.join())["cursor"]
        await two.join()
        assert (await one.until("user_joined"))["roomSize"] == 2
        made = [await other.new_task(str(n)) for n in range(3)]
        for peer in (one, two):
            assert [(await peer.until("task_created"))["task"] for _ in made] == made
        await two.send({"type": "typing", "boardId": "board-1"})
        await one.until("user_typing")
        await two.send(b"binary")
        assert (await two.until("error"))["code"] == "malformed"
        await two.close()
        await one.until("user_left", 7)  # Hypercorn calls every end an unclean one, which has grace
        await one.send({"type": "sync", "boardId": "board-1", "since": cursor})
        assert (await one.until("synced"))["count"] == 3
    async with await other.dial("/ws?token=nonsense") as peer:
        assert await peer.closed() == 4001
    async with await other.dial() as peer:
        await peer.join(since=cursor)
        assert [(await peer.until("task_created"))["task"] for _ in made] == made


async def test_a_slow_reader_is_caught_up_on_any_server(other: Server) -> None:
    async with await other.dial(max_queue=1) as slow:
        await slow.join()
        big = {"listId": "list-todo", "title": "big", "description": "你" * 3000}  # 9,000 bytes
        made = [(await other.post("/tasks", big))["data"]["id"] for _ in range(60)]
        assert [(await slow.until("task_created"))["task"]["id"] for _ in made] == made


async def test_what_rests_with_the_server_is_said_once(other: Server) -> None:
    async with await other.dial(), await other.dial():
        pass
    warned = other.log.read_text().count("does not hand its connections over")
    assert warned == ("holdfast.server.websocket" not in " ".join(other.command))


def test_the_board_works_in_starlettes_test_client() -> None:
    with TestClient(create_app("memory:")) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "connected"
        socket.send_json({"type": "join", "boardId": "board-1"})
        assert socket.receive_json()["type"] == "joined"
        task = client.post("/tasks", json={"listId": "list-todo", "title": "x"}).json()["data"]
        assert socket.receive_json()["task"] == task


def test_websocket_routes_of_the_application_stay_its_own() -> None:
    hub = Hub("memory:")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/echo", echo), Mount("/live", hub.app)], lifespan=hub.lifespan)
    with TestClient(app) as client, client.websocket_connect("/echo") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
