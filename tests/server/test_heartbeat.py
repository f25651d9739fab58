"""
The dead are noticed, and the living are spared: real sockets, real processes, short settings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from peers import SRC, RawPeer, Server, StartBoard

INTERVAL, TIMEOUT, SLACK = 1.0, 1.0, 0.5
FAST = ("--heartbeat-interval", str(INTERVAL), "--heartbeat-timeout", str(TIMEOUT))
BOUND = INTERVAL + TIMEOUT + SLACK

Dial = Callable[..., RawPeer]


async def connections(server: Server) -> int:
    return (await server.get("/admin/connections"))["data"]["total"]


@pytest.fixture(params=[pytest.param("--no-speed", marks=pytest.mark.long), "--speed"], ids=["asyncio", "uvloop"])
def speed(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(start_board: StartBoard, speed: str) -> Server:
    return start_board(*FAST, speed)


async def test_a_peer_that_answers_no_ping_is_gone_after_interval_plus_timeout(server: Server, raw_peer: Dial) -> None:
    async with await server.dial() as other:
        await other.join()
        dialed = time.monotonic()
        dead = raw_peer(server)
        dead.send({"type": "join", "boardId": "board-1"})
        joined = await other.until("user_joined")
        assert await dead.read_until_closed(BOUND + 1) <= BOUND
        assert time.monotonic() - dialed >= TIMEOUT
        left = await other.until("user_left", 1)
        assert left["userId"] == joined["userId"]
        assert left["roomSize"] == 1
        assert (await other.until("presence"))["users"] == [{"userId": other.heard[0]["user"]["userId"],
                                                             "name": other.heard[0]["user"]["name"]}]  # fmt: skip
        assert (await server.get("/admin/connections"))["data"] == {
            "total": 1,
            "boards": {"board-1": {"websocket": 1, "sse": 0, "poll": 0}},
        }


async def test_a_peer_that_never_says_a_word_is_gone_too(server: Server, raw_peer: Dial) -> None:
    dead = raw_peer(server)
    assert await dead.read_until_closed(BOUND + 1) <= BOUND
    assert await connections(server) == 0


async def test_who_is_pinged_in_words_beside_has_no_need_to_answer_them(server: Server) -> None:
    async with await server.dial(subprotocols=["holdfast.1"]) as peer:
        for _ in range(3):
            assert await peer.until("ping") == {"type": "ping", "quiet": True}
        assert await connections(server) == 1


async def test_a_peer_that_is_stopped_is_gone(server: Server, raw_peer: Dial) -> None:
    # SIGSTOP: its kernel still acknowledges, so only the missing pong tells.
    program = (
        "import asyncio, sys, websockets\n"
        "async def main():\n"
        f"    async with websockets.connect('ws://localhost:{server.port}/ws', proxy=None) as ws:\n"
        '        await ws.send(\'{"type":"join","boardId":"board-1"}\')\n'
        "        async for message in ws: print(message, flush=True)\n"
        "asyncio.run(main())\n"
    )
    peer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        async with await server.dial() as other:
            await other.join()
            if (await server.get("/admin/connections"))["data"]["total"] < 2:
                await other.until("user_joined", 10)
            await asyncio.sleep(2 * INTERVAL)  # it answers its pings
            assert await connections(server) == 2
            os.kill(peer.pid, signal.SIGSTOP)
            stopped = time.monotonic()
            await other.until("user_left", BOUND + 1)
            assert time.monotonic() - stopped <= BOUND
    finally:
        peer.kill()
        peer.communicate()


async def test_a_peer_that_stops_reading_while_the_server_sends_is_gone(server: Server, raw_peer: Dial) -> None:
    # `close()` would wait for a buffer that nobody reads.
    dead = raw_peer(server, receive_buffer=4096)
    dead.send({"type": "join", "boardId": "board-1"})
    writing = asyncio.create_task(write_for_ever(server))
    try:
        # It may have been pinged, and have answered by what it sent, just before it fell silent.
        assert await dead.is_cut(BOUND + 2) <= BOUND
    finally:
        writing.cancel()
    assert await connections(server) == 0


async def write_for_ever(server: Server) -> None:
    while True:
        await server.new_task("x" * 400)


async def test_a_peer_that_only_sends_and_never_pongs_stays(server: Server, raw_peer: Dial) -> None:
    # Any received byte is life: better than to insist on a pong that waits behind other things.
    busy = raw_peer(server)
    end = time.monotonic() + 3 * BOUND
    while time.monotonic() < end:
        busy.send({"type": "pong"})
        await asyncio.sleep(TIMEOUT / 3)
    assert await connections(server) == 1


async def test_half_a_frame_is_a_sign_of_life(server: Server, raw_peer: Dial) -> None:
    slow = raw_peer(server)
    frame = b"\x81\xfe\x01\x00" + b"mask" + b" " * 256
    for byte in frame[:16]:
        slow.send_bytes(bytes([byte]))
        await asyncio.sleep(TIMEOUT / 2.5)
    assert await connections(server) == 1


async def test_nobody_is_cut_because_the_server_stood_still(server: Server, raw_peer: Dial) -> None:
    async with await server.dial() as peer:
        await peer.join()
        await asyncio.sleep(INTERVAL / 2)
        server.freeze()
        await asyncio.sleep(2 * (INTERVAL + TIMEOUT))
        server.thaw()
        await asyncio.sleep(BOUND)
        await peer.send({"type": "ping"})
        await peer.until("pong")
        assert await connections(server) == 1


async def test_nobody_is_cut_because_the_whole_machine_stood_still(start_board: StartBoard, speed: str) -> None:
    """A machine that was suspended: the ping is out, and neither side has run since."""
    timeout = 3 * TIMEOUT
    server = start_board("--heartbeat-interval", str(INTERVAL), "--heartbeat-timeout", str(timeout), speed)
    script = (
        "import asyncio, websockets\n"
        "async def main():\n"
        f"    async with websockets.connect('ws://localhost:{server.port}/ws', ping_interval=None) as socket:\n"
        "        print(flush=True)\n"
        "        async for _ in socket: pass\n"
        "asyncio.run(main())\n"
    )
    peer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert peer.stdout is not None
    try:
        assert await asyncio.to_thread(peer.stdout.readline)  # it knows of its connection, too
        peer.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * INTERVAL)  # so it has been pinged, and could not answer
        server.freeze()
        await asyncio.sleep(2 * (INTERVAL + timeout))
        server.thaw()
        await asyncio.sleep(0.3)
        peer.send_signal(signal.SIGCONT)
        await asyncio.sleep(INTERVAL + timeout + SLACK)
        assert await connections(server) == 1
    finally:
        peer.kill()
        peer.communicate()


async def test_a_handler_that_takes_long_costs_nobody_the_connection(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(
        "import asyncio\n"
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Mount\n"
        "from holdfast import Hub\n"
        f"hub = Hub('memory:', heartbeat_interval={INTERVAL}, heartbeat_timeout={TIMEOUT})\n"
        "app = Starlette(routes=[Mount('/live', hub.app)], lifespan=hub.lifespan)\n"
        "@hub.on('slow')\n"
        "async def slow(request):\n"
        f"    await asyncio.sleep({1.5 * (INTERVAL + TIMEOUT)})\n"
        "    return 'done'\n"
    )
    with Server(folder, "serve", "slow:app", env={"PYTHONPATH": f"{SRC}:{folder}"}) as server:
        async with await server.dial("/live/ws") as peer:
            await peer.send({"type": "slow", "ref": 1})
            await peer.send({"type": "slow", "ref": 2})  # one more waits meanwhile
            await asyncio.sleep(INTERVAL)
            await peer.send({"type": "ping"})
            await peer.until("pong", 0.5)  # and it is heard at once
            assert (await peer.until("reply", 10)) == {"type": "reply", "ref": 1, "ok": True, "data": "done"}
            assert (await peer.until("reply", 10))["ref"] == 2


async def test_whoever_reads_slowly_what_is_said_behind_a_ping_is_pinged_again(
    tmp_path: Path, raw_peer: Dial, speed: str
) -> None:
    # From the first ping on the transport is full: that this one was read has to be seen, and the next one asked.
    (tmp_path / "big.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Mount\n"
        "from holdfast import Hub\n"
        f"hub = Hub('memory:', heartbeat_interval={INTERVAL}, heartbeat_timeout={TIMEOUT})\n"
        "app = Starlette(routes=[Mount('/', hub.app)], lifespan=hub.lifespan)\n"
        "@hub.on('big')\n"
        "async def big(request):\n"
        "    return 3_000_000 * 'x'\n"
    )
    with Server(tmp_path, "serve", "big:app", speed, env={"PYTHONPATH": f"{SRC}:{tmp_path}"}) as server:
        slow = raw_peer(server, receive_buffer=65536)
        reading = asyncio.create_task(asyncio.to_thread(slow.read_slowly, 65536, 0.04, 4 * BOUND))
        for ref in range(4):
            slow.send({"type": "big", "ref": ref})
            await asyncio.sleep(INTERVAL / 2)  # from then on it says nothing but what it is asked for
        assert await reading > 10_000_000


async def test_a_ping_that_waits_behind_data_on_a_slow_link_kills_nobody(server: Server, raw_peer: Dial) -> None:
    # The link takes far longer than the timeout for what is under way, but it takes it.
    slow = raw_peer(server, receive_buffer=16384)
    slow.send({"type": "join", "boardId": "board-1"})
    reading = asyncio.create_task(asyncio.to_thread(slow.read_slowly, 8192, 0.08, 4 * BOUND))
    big = {"listId": "list-todo", "title": "a task", "description": "y" * 9000}
    async with httpx2.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        for _ in range(100):
            assert (await client.post("/tasks", json=big)).status_code == 201
    assert await reading > 500_000
    assert await connections(server) == 1
