"""What lies in `deploy/` is started for real, and a deploy behind it loses nothing."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from crowd import allow_files
from deploy.proxies import DEPLOY, SetUp, caddy, nginx, running
from deploy.rolling import rolling_deploy
from peers import Server


@pytest.fixture
def servers(tmp_path: Path, database: str) -> Iterator[list[Server]]:
    """Three boards on one database."""
    with ExitStack() as running:
        folders = [tmp_path / f"node-{number}" for number in range(3)]
        for folder in folders:
            folder.mkdir()
        yield [running.enter_context(Server(folder, "board", "--store", database)) for folder in folders]


@pytest.fixture(params=[nginx, pytest.param(caddy, marks=pytest.mark.long)], ids=lambda proxy: proxy.__name__)
def proxy(request: pytest.FixtureRequest) -> SetUp:
    """Which one is before them."""
    set_up: SetUp = request.param
    if shutil.which(set_up.__name__) is None:
        pytest.skip(f"there is no {set_up.__name__} (Debian: apt install {set_up.__name__})")
    return set_up


@pytest.fixture
def url(proxy: SetUp, tmp_path: Path, servers: list[Server]) -> Iterator[str]:
    """Its address; it is set up as `deploy/` says."""
    with running(proxy, tmp_path, servers) as url:
        yield url


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
    url: str, proxy: SetUp, servers: list[Server]
) -> None:
    again = frozenset({502}) if proxy is caddy else frozenset[int]()  # as its Caddyfile says
    report = await rolling_deploy(url, servers[:2], clients=30, tries_again_on=again)
    assert (report.failed, report.resyncs, report.wrong) == ([], [], [])


@pytest.mark.long
@pytest.mark.parametrize("proxy", [nginx], ids=["nginx"], indirect=True)
async def test_three_thousand_clients_and_one_server_of_three_that_leaves(url: str, servers: list[Server]) -> None:
    clients = 3_000
    allow_files()
    report = await rolling_deploy(url, servers[:1], clients=30, light=clients - 30, boards=50, writes_per_second=20)
    print(report.summary(clients))
    assert (report.failed, report.resyncs, report.wrong) == ([], [], [])


def test_the_unit_is_one_that_systemd_understands() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(DEPLOY / "holdfast.service")], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if "holdfast.service" in line]
    assert all("/opt/holdfast/bin/holdfast" in line for line in complaints), done.stderr  # it is not installed here
