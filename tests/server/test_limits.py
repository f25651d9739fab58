"""
Limits, by default, at real sockets; how exactly each is kept is in `test_defaults.py`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from websockets.frames import Frame, Opcode

from holdfast import Hub, Limits
from holdfast.protocol import messages
from peers import SRC, RawPeer, Server, StartBoard

LIMITS = Limits()
Dial = Callable[..., RawPeer]


async def test_a_message_of_64_kib_passes_and_one_more_byte_does_not(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.until("connected")
        message = '{"type":"ping","x":"' + "x" * (LIMITS.message_bytes - 22) + '"}'
        assert len(message) == LIMITS.message_bytes
        await peer.send(message)
        await peer.until("pong")
        await peer.send(message + " ")
        assert await peer.closed() == 1009


async def test_a_message_may_come_in_64_fragments_and_not_in_more(board: Server, raw_peer: Dial) -> None:
    for fragments, survives in ((64, True), (65, False)):
        peer = raw_peer(board)
        peer.send_frame(Frame(Opcode.TEXT, b'{"type":"ping"', False))
        for _ in range(fragments - 2):
            peer.send_frame(Frame(Opcode.CONT, b"", False))
        peer.send_frame(Frame(Opcode.CONT, b"}", True))
        closed = asyncio.create_task(peer.read_until_closed(10))
        await asyncio.wait((closed,), timeout=1.5)
        assert closed.done() is not survives
        closed.cancel()


async def test_by_http_a_person_says_no_more_than_on_a_websocket(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Mount\n"
        "from holdfast import Hub, Limits\n"
        "hub = Hub('memory:', limits=Limits(messages_per_second=0.01, message_burst=5))\n"
        "app = Starlette(routes=[Mount('/live', hub.app)], lifespan=hub.lifespan)\n"
        "@hub.on('say')\n"
        "async def say(request):\n"
        "    return 'heard'\n"
    )
    with Server(tmp_path, "serve", "says:app", env={"PYTHONPATH": f"{SRC}:{tmp_path}"}) as server:
        one, other = [(await server.post("/live/send", {"type": "auth"}))["token"] for _ in range(2)]

        async def says(count: int, **headers: str) -> list[int]:
            return [
                (await server.request("POST", "/live/send", {"type": "say"}, **headers)).status_code
                for _ in range(count)
            ]

        assert await says(7, authorization=f"Bearer {one}") == [200] * 5 + [429] * 2
        assert await says(5, authorization=f"Bearer {other}") == [200] * 5  # it is not their fault
        assert await says(7) == [200] * 5 + [429] * 2  # those who cannot be known are counted together
        refused = await server.request("POST", "/live/send", {"type": "say", "ref": 1}, authorization=f"Bearer {one}")
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"] == "more than 0.01 messages a second"


async def test_a_connection_can_be_in_100_rooms_and_not_in_more(tmp_path: Path) -> None:
    (tmp_path / "rooms.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Mount\n"
        "from holdfast import Hub\n"
        "hub = Hub('memory:')\n"
        "app = Starlette(routes=[Mount('/live', hub.app)], lifespan=hub.lifespan)\n"
    )
    with Server(tmp_path, "serve", "rooms:app", env={"PYTHONPATH": f"{SRC}:{tmp_path}"}) as server:
        async with await server.dial("/live/ws") as peer:
            for n in range(LIMITS.rooms_per_connection + 1):
                await peer.send({"type": "join", "room": f"room-{n}"})
                await asyncio.sleep(1.1 / LIMITS.messages_per_second)
            error = await peer.until("error")
            assert (error["code"], error["room"]) == ("too_many", f"room-{LIMITS.rooms_per_connection}")
            await peer.send({"type": "join", "room": "room-0"})
            await peer.until("joined")  # it is in there already


async def test_nobody_is_listened_to_for_more_than_4_kib(start_board: StartBoard) -> None:
    server = start_board("--require-login")
    room = 4 * 1024 - 26 - 8  # a masked frame's head is 8 bytes
    for token in ("x" * room, "💣" * (room // 4)):
        message = f'{{"type":"auth","token":"{token}"}}'
        assert len(message.encode()) + 8 <= 4 * 1024
        async with await server.dial() as peer:
            await peer.send(message)
            assert await peer.closed() == 4001
        async with await server.dial() as peer:
            await peer.send(message.replace("auth", "auth ") + " " * 26)
            assert await peer.closed() == 1009


async def test_a_body_is_at_most_64_kib(board: Server) -> None:
    for size, status in ((64 * 1024, 422), (64 * 1024 + 1, 413)):
        assert (await board.request("POST", "/tasks", b"{}".ljust(size))).status_code == status


async def test_a_body_must_arrive_within_10_seconds_and_every_head_too(board: Server) -> None:
    loop = asyncio.get_running_loop()
    half_body = socket.create_connection(("127.0.0.1", board.port))
    second_head = socket.create_connection(("127.0.0.1", board.port))
    with half_body, second_head:
        for sock in (half_body, second_head):
            sock.setblocking(False)
        head = b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        await loop.sock_sendall(half_body, head)
        await loop.sock_sendall(second_head, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await loop.sock_recv(second_head, 65536)
        await loop.sock_sendall(second_head, b"GET /healthz HTTP/1.1\r\nHost:")
        began = time.monotonic()
        async with asyncio.timeout(LIMITS.request_seconds + 2):
            answer, _ = await asyncio.gather(everything(loop, half_body), ended(loop, second_head))
        assert b" 408 " in answer
        assert time.monotonic() - began > LIMITS.request_seconds - 0.5


async def test_a_request_must_say_what_it_wants_within_10_seconds(board: Server) -> None:
    loop = asyncio.get_running_loop()
    silent = socket.create_connection(("127.0.0.1", board.port))
    dribbling = socket.create_connection(("127.0.0.1", board.port))
    began = time.monotonic()
    with silent, dribbling:
        for sock in (silent, dribbling):
            sock.setblocking(False)
        closing = [asyncio.create_task(ended(loop, sock)) for sock in (silent, dribbling)]
        for byte in b"GET / HTTP/1.1":
            if closing[1].done():
                break
            await loop.sock_sendall(dribbling, bytes([byte]))
            await asyncio.sleep(0.5)
        await asyncio.wait(closing, timeout=10)
        assert all(task.done() for task in closing)
        assert LIMITS.request_seconds - 0.5 < time.monotonic() - began < LIMITS.request_seconds + 2


async def everything(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """Return what comes until it is closed."""
    received = b""
    with suppress(ConnectionError):
        while data := await loop.sock_recv(sock, 65536):
            received += data
    return received


async def ended(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    with suppress(ConnectionError):
        assert await loop.sock_recv(sock, 1) == b""


async def test_a_stream_carries_at_most_32_rooms(board: Server) -> None:
    boards = ",".join(f"board-{n}" for n in range(33))
    response = await board.request("GET", f"/events?boards={boards}")
    assert (response.status_code, "32" in response.json()["error"]) == (400, True)


async def test_a_publication_is_at_most_64_kib() -> None:
    async with Hub("memory:") as hub:
        await hub.publish("room", "x", {"a": "x" * 65_000})
        with pytest.raises(Exception, match="65536 bytes"):
            await hub.publish("room", "x", {"a": "x" * 65_536})


@pytest.mark.parametrize("seconds", [0, -1, 0.001, 3600.5, float("inf"), float("nan")])
def test_a_hub_promises_nothing_that_its_clients_could_not_keep_to(seconds: float) -> None:
    for options in ({"heartbeat_interval": seconds}, {"heartbeat_timeout": seconds}):
        with pytest.raises(ValueError, match="Expected `float`"):
            Hub("memory:", **options)  # type: ignore[arg-type]
    if seconds <= 0.001:
        with pytest.raises(ValueError, match="messagesPerSecond"):
            Hub("memory:", limits=Limits(messages_per_second=seconds))


def beside_a_room() -> set[str]:
    """The fields of all messages that have a room, and of the one that says who somebody is."""
    structs = [each for each in vars(messages).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    fields = {each: {field.encode_name for field in msgspec.structs.fields(each)} for each in structs}
    named = (fields[each] for each in structs if "room" in fields[each] or each is messages.Auth)
    return {"lastEventId"}.union(*named) - {"room", "data"}  # what is published is beside it, and not in `data`


@pytest.mark.parametrize("key", [*sorted(beside_a_room()), "", "x" * 65, "the room", "room\n", 'a"b'])
def test_rooms_travel_under_a_name_of_their_own(key: str) -> None:
    with pytest.raises(ValueError, match="Expected `str`"):
        Hub("memory:", room_key=key)
    Hub("memory:", room_key="types")
