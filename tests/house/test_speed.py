"""The bench of speed runs, its clients are not deceived, and its page says what was measured."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.sync import server as sync

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bench" / "speed"
sys.path.insert(0, str(FOLDER))

import contestants  # noqa: E402
import figures  # noqa: E402
import machine  # noqa: E402
import tables  # noqa: E402

needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="the floor and the clients are in C")


def test_the_page_is_what_was_measured() -> None:
    page = (ROOT / "bench" / "README.md").read_text()
    assert tables.inserted(page, json.loads((FOLDER / "results.json").read_text())) == page


@needs_c
@pytest.mark.parametrize(
    ("joined", "offsets", "found"),
    [
        ('"e:3","recovered":true', [4, 5], {}),
        ('"e:3","recovered":true', [5], {"missing": 3}),
        ('"e:5","recovered":true', [6], {"missing": 6}),
        ('"e:3","recovered":true', [3, 4, 4, 5], {"repeated": 6}),
        ('"e:2","recovered":true', [3, 4, 5], {"repeated": 3}),
        ('"f:5","recovered":false', [6], {"resyncs": 3}),
        (None, [], {"back": 0, "behind": 3}),
    ],
    ids=["true", "loses", "loses and denies it", "repeats", "goes back", "begins anew", "is silent"],
)
async def test_a_server_that_loses_or_repeats_is_found_out(
    joined: str | None, offsets: list[int], found: dict[str, int]
) -> None:
    all_have_all, all_returned = asyncio.Event(), asyncio.Barrier(4)

    async def lie(connection: ServerConnection) -> None:
        await connection.send('{"type":"connected"}')
        returns = '"since":"e:3"' in str(await connection.recv())
        if returns:
            await all_returned.wait()
        cursor = joined if returns else '"e:1"'
        if cursor is None:
            await connection.wait_closed()
        await connection.send(f'{{"type":"joined","room":"room","cursor":{cursor}}}')
        epoch = cursor[1]
        for offset in offsets if returns else [2, 3]:
            await connection.send(f'{{"type":"said","room":"room","id":"{epoch}:{offset}"}}')
        if not returns:
            await all_have_all.wait()
            connection.transport.abort()
        await connection.wait_closed()

    steps = (
        "--step",
        "connected",
        '{"type":"join","room":"room"%p}',
        "--step",
        '"joined"',
        "",
        "--mark",
        '"said"',
        "--return",
    )
    async with serve(lie, "127.0.0.1", 0) as server:
        with machine.crowd(next(iter(server.sockets)).getsockname()[1], 3, *steps) as clients:
            await asyncio.to_thread(clients.open)
            await asyncio.to_thread(clients.wait, 3 * 2)
            all_have_all.set()
            await all_returned.wait()
            await asyncio.to_thread(clients.wait, 3 * (2 + len(offsets)))
            look = await asyncio.to_thread(clients.returned, 1)
    said = {what: getattr(look, what) for what in ("back", "behind", "missing", "repeated", "resyncs")}
    assert said == {"back": 3, "behind": 0, "missing": 0, "repeated": 0, "resyncs": 0} | found


class Liar(contestants.Holdfast):
    """A server that says it has told everybody everything, and has done otherwise."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._people: list[sync.ServerConnection] = []

    def _serve(self, connection: sync.ServerConnection) -> None:
        self._people.append(connection)
        connection.send('{"type":"connected"}')
        for text in connection:
            if '"join"' in str(text):
                connection.send('{"type":"joined","cursor":"e:0"}')
                continue
            said = json.loads(text)["p"]
            if self._how == "refuses":
                connection.send('{"type":"error","code":"rate_limited"}')
            elif self._how == "closes" and said == "x6":
                connection.close()
            else:
                answer = json.dumps({"p": "x1" if self._how == "answers another" else said}, separators=(",", ":"))
                for _ in range(2 if self._how == "answers twice" and said == "x45" else 1):
                    connection.send(answer)

    @contextmanager
    def serving(self, home: Path) -> Iterator[contestants.Started]:
        with sync.serve(self._serve, "127.0.0.1", 0) as server, ThreadPoolExecutor(1) as pool:
            pool.submit(server.serve_forever)
            here = SimpleNamespace(pid=os.getpid())
            try:
                yield contestants.Started(machine.Running(here), server.socket.getsockname()[1], self)  # type: ignore[arg-type]
            finally:
                server.shutdown()

    def _told(self, offset: int, count: int, number: int) -> str:
        epoch, at = "e", 1000 * offset
        match self._how:
            case "tells each something else":
                at += number
            case "tells the first again under other positions":
                at = 1000
            case "tells the last first":
                at = 1000 * (count - offset)
            case "begins anew each time":
                epoch = f"e{offset}"
        id = "" if self._how == "tells the last first" else f'"id":"{epoch}:{offset}",'
        return f'{{"type":"m",{id}"at":{at}}}'

    def go(self, port: int, rounds: int, burst: int, gap: float, size: int) -> None:
        for offset in range(1, rounds * burst + 1):
            for number, person in enumerate(self._people):
                for _ in range({"tells twice": 2, "tells half of them twice": 2 * (number % 2)}.get(self._how, 1)):
                    person.send(self._told(offset, rounds * burst, number))


@needs_c
@pytest.mark.parametrize(
    "how",
    [
        "tells twice", "tells half of them twice", "tells each something else", "tells the last first",
        "tells the first again under other positions", "begins anew each time",
    ],
)  # fmt: skip
def test_deliveries_count_only_if_everybody_has_each_once(how: str) -> None:
    with figures.started(Liar(how)) as one, machine.crowd(one.port, 10, *Liar.crowd, "--in-order") as clients:
        clients.open()
        with pytest.raises(RuntimeError, match=r"of \d+ deliveries"):
            figures.deliver(one, clients, 3, 1, 0.0)


@needs_c
@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("refuses", "of 50 messages 0 were answered"),
        ("answers another", "of 50 messages 10 were answered"),
        ("closes", "of 400 messages 0 were answered"),
        ("answers twice", "10 answers came twice"),
    ],
)
def test_only_the_answer_is_an_echo_and_only_once(how: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "ECHO_PEOPLE", 10)
    monkeypatch.setattr(figures, "ECHO_SECONDS", 2 if how in ("refuses", "answers another") else 60)
    with pytest.raises(RuntimeError, match=found):
        list(figures.echo(Liar(how)))


@needs_c
def test_who_was_somewhere_is_to_go_on_there() -> None:
    options = (*Liar.crowd, "--since", "e:3")
    with figures.started(Liar("is behind")) as one, machine.crowd(one.port, 10, *options) as clients:
        clients.open()
        assert clients.stat().repeated == 30


@needs_c
def test_who_is_lost_meanwhile_is_told() -> None:
    with figures.started(Liar("closes")) as one, machine.crowd(one.port, 10, *Liar.crowd) as clients:
        clients.open()
        with pytest.raises(RuntimeError, match="of 60 messages 50 were answered"):
            clients.echo(6, 60, Liar.echo)
        with pytest.raises(RuntimeError, match="10 of 10 were lost"):
            figures.deliver(one, clients, 3, 1, 0.0)


@pytest.mark.long
@needs_c
def test_a_quick_look_measures_what_it_says() -> None:
    line = [sys.executable, str(FOLDER / "run.py"), "echo", "resume", "start", "--quick", "--only", "holdfast"]
    said = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    figures = [line.split()[1] for line in said.stderr.splitlines()]
    assert figures == ["echo", "resume", "start"]
