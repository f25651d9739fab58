"""Several processes serve one port: what one of them takes in all of them know, and none outlives the first."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from holdfast.server.crew import LONGEST_PAUSE_SECONDS, Crew, Place, Worker
from holdfast.server.runner import CannotListen, hold, listen
from peers import Peer, Server
from store.conftest import until

REFUSAL = "workers need a database that they can share: --store postgresql://user@host/name"


@pytest.fixture
def crew(tmp_path: Path, database: str) -> Iterator[Server]:
    """Two workers on one port."""
    with Server(tmp_path, "board", "--store", database, "--workers", "2") as server:
        yield server


def workers(server: Server) -> list[int]:
    """Return the processes that the first has started."""
    tasks = Path(f"/proc/{server.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def connections_of(pid: int, port: int) -> int:
    """Return how many connections to a port a process holds."""
    open_sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            open_sockets.add(target[8:-1])
    held = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            is_established = fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port
            held += is_established and fields[9] in open_sockets
    return held


async def test_both_take_part_and_are_one_board(crew: Server) -> None:
    peers: list[Peer] = [await crew.dial() for _ in range(40)]
    try:
        await until(
            lambda: sum(connections_of(pid, crew.port) for pid in workers(crew)) == 40
        )  # a request was before them
        shares = [connections_of(pid, crew.port) for pid in workers(crew)]
        assert min(shares) >= 5  # by chance fewer than one in a hundred thousand times
        for peer in peers:
            await peer.join()
        made = await crew.new_task("for all")
        for peer in peers:
            assert (await peer.until("task_created"))["task"] == made
        assert (await peers[0].join())["roomSize"] == 40
    finally:
        for peer in peers:
            await peer.close()


async def test_a_worker_that_is_killed_is_started_again(crew: Server) -> None:
    first = workers(crew)
    await asyncio.sleep(1.2)
    os.kill(first[0], signal.SIGKILL)
    await until(lambda: len(workers(crew)) == 2 and first[0] not in workers(crew))
    for number in range(10):
        await crew.new_task(f"task {number}")


FRAIL = """
import time
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

time.sleep(60 if Path("slow").exists() else 0)
assert not Path("ill").exists()
app = Starlette(routes=[Route("/", PlainTextResponse("here"))])
"""


@pytest.fixture
def frail(tmp_path: Path) -> Iterator[Server]:
    """Two workers, of which those to come do not get far while they are `slow` or `ill`."""
    (tmp_path / "app.py").write_text(FRAIL)
    with Server(tmp_path, "serve", "app:app", "--workers", "2") as server:
        yield server


async def all_are_answered(server: Server) -> None:
    """Newcomers of whom, if two shared them, each would have some; none waits for one that does not serve."""
    for _ in range(30):
        async with asyncio.timeout(2.0):
            assert (await server.request("GET", "/")).text == "here"


async def test_nobody_waits_for_a_worker_that_is_not_ready(frail: Server) -> None:
    first = workers(frail)
    (frail.folder / "slow").touch()
    os.kill(first[0], signal.SIGKILL)
    await until(lambda: len(workers(frail)) == 2 and first[0] not in workers(frail))
    await all_are_answered(frail)


@pytest.mark.long
async def test_nobody_waits_for_one_that_fails_again_and_again(frail: Server) -> None:
    first = workers(frail)
    (frail.folder / "ill").touch()
    os.kill(first[0], signal.SIGKILL)
    await until(lambda: frail.log.read_text().count(" is started again in ") >= 2)
    await all_are_answered(frail)
    (frail.folder / "ill").unlink()
    await until(lambda: frail.log.read_text().count("Application startup complete") == 3)
    os.kill(first[1], signal.SIGKILL)
    await until(lambda: first[1] not in workers(frail))
    await all_are_answered(frail)


class Mortal(Worker):
    """A worker that is no process."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.process = cast("Any", SimpleNamespace(pid=1))

    def close(self) -> None:
        pass


def test_one_that_fails_again_and_again_is_started_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    starts: list[float] = []
    monkeypatch.setattr("time.monotonic", lambda: now)

    def start() -> Worker:
        starts.append(now)
        return Mortal(now)

    place = Place(start)
    while len(starts) < 9:
        place.replace(1)
        now += 0.5
    assert starts == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0, 121.0]
    now = 121.0 + LONGEST_PAUSE_SECONDS + 1  # this one has done well
    while len(starts) < 12:
        place.replace(1)
        now += 0.5
    assert starts[9:] == [152.0, 154.0, 158.0]


async def test_sigterm_ends_all_of_them(crew: Server) -> None:
    peer = await crew.dial()
    await peer.join()
    children = workers(crew)
    assert crew.stop() == 0
    assert await peer.closed() == 1012
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.long
async def test_it_can_be_started_again_at_once_on_the_same_port(crew: Server) -> None:
    peers = [await crew.dial() for _ in range(4)]
    for peer in peers:
        await peer.join()
    stopping = asyncio.create_task(asyncio.to_thread(crew.stop))
    assert {await peer.closed() for peer in peers} == {1012}
    assert await stopping == 0
    await asyncio.to_thread(crew.start)  # the server has closed first: its ends of the links linger
    await crew.new_task("after")


DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(int(os.environ["HOLDFAST_WORKER_READY_FD"]), b".")
time.sleep(60)
"""


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back what a crew does with signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def crew_of(program: str, seconds: float) -> Crew:
    return Crew([sys.executable, "-c", program], [socket.create_server(("127.0.0.1", 0))], 2, seconds)


@pytest.mark.usefixtures("signals")
def test_a_worker_that_does_not_end_in_time_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    began = 0.0

    def end() -> None:
        nonlocal began
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

    assert crew_of(DEAF, 0.3).run(end) == 0
    assert 0.3 <= time.monotonic() - began < 5.0
    assert caplog.text.count("does not end, and is killed") == 2


@pytest.mark.usefixtures("signals")
def test_one_that_is_killed_before_it_serves_is_a_failure_that_a_shell_understands() -> None:
    assert crew_of("import os; os.kill(os.getpid(), 9)", 5.0).run(lambda: None) == 128 + signal.SIGKILL


async def test_who_is_told_twice_to_end_does_not_wait_for_a_worker_that_stands_still(crew: Server) -> None:
    children = workers(crew)
    os.kill(children[0], signal.SIGSTOP)
    assert crew.process is not None
    crew.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(1.0)
    assert crew.process.poll() is None
    crew.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(crew.process.wait, 5.0) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


NOSY = """
import os
import subprocess
import sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

told = "import os; print(sorted(name for name in os.environ if name.startswith('HOLDFAST_')))"
said = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout
app = Starlette(routes=[Route("/", PlainTextResponse(said))])
"""


@pytest.mark.parametrize("number", ["1", "2"])
async def test_only_a_worker_takes_itself_for_one_and_what_it_starts_does_not(tmp_path: Path, number: str) -> None:
    (tmp_path / "app.py").write_text(NOSY)
    theirs = {"HOLDFAST_PORT": "8000", "HOLDFAST_WORKER_PORT": "eight thousand"}
    with Server(tmp_path, "serve", "app:app", "--workers", number, env=theirs) as server:
        said = (await server.request("GET", "/")).text
    assert "HOLDFAST_PORT" in said
    assert "WORKER" not in said


async def crowd_of(server: Server) -> list[Peer]:
    """Clients that know how to move, some at each worker."""
    return [await server.dial(subprotocols=["holdfast.1"]) for _ in range(10)]


async def advice(peers: list[Peer]) -> set[tuple[int, int]]:
    """Return when clients are told to come back: after how long, and over how long they are spread."""
    told = [await peer.until("goodbye") for peer in peers]
    return {(each["after_ms"], each["spread_ms"]) for each in told}


async def test_when_all_of_them_end_nobody_is_told_to_move_to_one_that_ends_too(crew: Server) -> None:
    peers = await crowd_of(crew)
    stopping = asyncio.create_task(asyncio.to_thread(crew.stop))
    assert await advice(peers) == {(2000, 1000)}
    assert {await peer.closed() for peer in peers} == {1012}
    assert await stopping == 0


@pytest.mark.long
async def test_where_another_server_stays_their_clients_move_to_it(tmp_path: Path, crew: Server, database: str) -> None:
    (tmp_path / "other").mkdir()
    with Server(tmp_path / "other", "board", "--store", database):
        peers = await crowd_of(crew)
        stopping = asyncio.create_task(asyncio.to_thread(crew.stop))
        assert {after for after, _ in await advice(peers)} == {0}
        for peer in peers:
            await peer.close()
        await stopping


async def test_none_outlives_the_first_however_that_ended(crew: Server) -> None:
    children = workers(crew)
    crew.kill()
    await until(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()])
    with pytest.raises(httpx2.ConnectError):
        await crew.get("/healthz")


def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path, crew: Server, database: str) -> None:
    second = Server(tmp_path, "board", "--store", database, "--workers", "2")
    second.command[-1] = str(crew.port)
    done = subprocess.run(second.command, cwd=tmp_path, env=second.env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "choose another with --port" in done.stderr


def test_a_port_is_held_against_others_also_while_no_worker_listens() -> None:
    held = hold("127.0.0.1", 0)
    try:
        port = held[0].getsockname()[1]
        with pytest.raises(CannotListen):
            hold("127.0.0.1", port)
        with pytest.raises(CannotListen):
            listen("127.0.0.1", port, user_timeout=1.0)
        for worker in [listen("127.0.0.1", port, user_timeout=1.0, is_shared=True) for _ in range(2)]:
            worker[0].listen()
            worker[0].close()
    finally:
        held[0].close()


def test_a_port_that_another_program_listens_on_is_not_shared_with_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even if it would share it
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CannotListen):
            hold("127.0.0.1", other.getsockname()[1])


@pytest.mark.parametrize("place", ["board.db", "memory:"])
def test_on_a_file_it_is_refused_with_a_sentence(tmp_path: Path, place: str) -> None:
    server = Server(tmp_path, "board", "--data", place, "--workers", "3")
    done = subprocess.run(server.command, cwd=tmp_path, env=server.env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: one process serves the file {place}; 3 {REFUSAL}\n"


@pytest.mark.parametrize("place", ["chat.db", pytest.param("memory:", marks=pytest.mark.long)])
def test_so_is_an_application_of_ones_own(tmp_path: Path, place: str) -> None:
    (tmp_path / "app.py").write_text(
        "from fastapi import FastAPI\nfrom holdfast import Hub\n"
        f"hub = Hub({place!r})\napp = FastAPI(lifespan=hub.lifespan)\n"
    )
    server = Server(tmp_path, "serve", "app:app", "--workers", "2")
    done = subprocess.run(server.command, cwd=tmp_path, env=server.env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "one process serves a file, and this is one of several: drop --workers" in done.stderr
    assert "Traceback" not in done.stderr
    with socket.create_server(("127.0.0.1", server.port)):
        pass  # nobody is left
