"""What lies in `deploy/` is started for real, and a deploy behind it loses nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

import holdfast
from holdfast import Event, Resync
from peers import Server, free_port
from store.conftest import until

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def servers(tmp_path: Path, database: str) -> Iterator[list[Server]]:
    """Three boards on one database."""
    with ExitStack() as running:
        folders = [tmp_path / f"node-{number}" for number in range(3)]
        for folder in folders:
            folder.mkdir()
        yield [running.enter_context(Server(folder, "board", "--store", database)) for folder in folders]


def with_ports(text: str, servers: list[Server], port: int) -> str:
    for number, server in enumerate(servers, 3001):
        assert f"127.0.0.1:{number}" in text
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{server.port}")
    assert "8080" in text
    return text.replace("8080", str(port))


def nginx(folder: Path, servers: list[Server], port: int) -> list[str]:
    (folder / "holdfast.conf").write_text(with_ports((DEPLOY / "nginx.conf").read_text(), servers, port))
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"include {folder}/holdfast.conf; }}\n"
    )
    return ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, servers: list[Server], port: int) -> list[str]:
    text = with_ports((DEPLOY / "Caddyfile").read_text(), servers, port)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n\tgrace_period 1s\n}\n\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


@pytest.fixture(params=[nginx, caddy], ids=lambda proxy: proxy.__name__)
def proxy(request: pytest.FixtureRequest) -> Callable[[Path, list[Server], int], list[str]]:
    """Which one is before them."""
    set_up: Callable[[Path, list[Server], int], list[str]] = request.param
    if shutil.which(set_up.__name__) is None:
        pytest.skip(f"there is no {set_up.__name__} (Debian: apt install {set_up.__name__})")
    return set_up


@pytest.fixture
def url(proxy: Callable[..., list[str]], tmp_path: Path, servers: list[Server]) -> Iterator[str]:
    """Its address; it is set up as `deploy/` says."""
    port = free_port()
    command = proxy(tmp_path, servers, port)
    with (tmp_path / "proxy.log").open("w") as log:
        environment = {**os.environ, "HOME": str(tmp_path)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/healthz", verify=False).status_code == 200:
                    break
            except httpx2.HTTPError:
                pass
            assert time.monotonic() < deadline, (tmp_path / "proxy.log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def test_streams_are_not_held_back(url: str, servers: list[Server]) -> None:
    async with (
        httpx2.AsyncClient(base_url=url, verify=False, timeout=20) as client,
        client.stream("GET", "/boards/board-1/events") as stream,
    ):
        lines = stream.aiter_lines()
        while "connected" not in await anext(lines):
            pass
        began = time.monotonic()
        await servers[0].new_task("at once")
        while "at once" not in await anext(lines):
            pass
        assert time.monotonic() - began < 2.0


async def test_a_rolling_deploy_loses_no_event_and_fails_no_write(
    url: str, proxy: Callable[..., list[str]], servers: list[Server]
) -> None:
    heard: list[list[tuple[int, float]]] = [[] for _ in range(30)]
    gaps: list[Any] = []
    failed: list[Any] = []
    made: dict[int, float] = {}
    has_ended = asyncio.Event()

    async def listen(mine: list[tuple[int, float]]) -> None:
        async with holdfast.connect(url) as client, client.join("board-1") as room:
            async for item in room:
                if isinstance(item, Resync) and item.reason != "new":
                    gaps.append(item)
                elif isinstance(item, Event) and item.type == "task_created":
                    mine.append((int(item.data["task"]["title"]), time.monotonic()))

    async def write() -> None:
        async with httpx2.AsyncClient(base_url=url, verify=False, timeout=20) as client:
            while not has_ended.is_set():
                number = len(made)
                made[number] = time.monotonic()
                task = {"listId": "list-todo", "title": str(number)}
                key = {"idempotency-key": f"key-{number}"}
                answer = await client.post("/tasks", json=task, headers=key)
                while answer.status_code == 502 and proxy is caddy:  # as its Caddyfile says
                    await asyncio.sleep(0.1)
                    answer = await client.post("/tasks", json=task, headers=key)
                if answer.status_code != 201:
                    failed.append((answer.status_code, answer.text))
                await asyncio.sleep(0.03)

    listening = [asyncio.create_task(listen(mine)) for mine in heard]
    await asyncio.sleep(1.5)
    writing = asyncio.create_task(write())
    for server in servers[:2]:  # one after the other is replaced
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
    await asyncio.sleep(0.5)
    has_ended.set()
    await writing
    await until(lambda: all(mine and mine[-1][0] == len(made) - 1 for mine in heard), 20)
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    assert (failed, gaps) == ([], [])
    for mine in heard:
        numbers = [number for number, _ in mine]
        assert numbers == list(range(numbers[0], len(made)))
    late = sorted(when - made[number] for mine in heard for number, when in mine)
    assert late[int(0.99 * len(late))] <= 1.0


def test_the_unit_is_one_that_systemd_understands() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(DEPLOY / "holdfast.service")], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if "holdfast.service" in line]
    assert all("/opt/holdfast/bin/holdfast" in line for line in complaints), done.stderr  # it is not installed here
