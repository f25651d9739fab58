"""
Processes are stopped and killed, on both sides: nobody is judged by a late timer, what was acknowledged is there, and
what was commanded takes effect once, by whatever road it came.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from faults import Middlebox
from peers import SRC, Server
from real.people import BOUND, CLIENT_BOUND, INTERVAL, ROADS, TIMEOUT, Follower, app_in, everybody_has, following, until


async def connections(server: Server) -> int:
    return (await server.get("/state"))["connections"]


@pytest.mark.parametrize("seconds", [0.8 * (INTERVAL + TIMEOUT), pytest.param(0.5 * TIMEOUT, marks=pytest.mark.long)])
async def test_a_server_that_is_stopped_for_a_while_judges_nobody_by_it(tmp_path: Path, seconds: float) -> None:
    """Shorter than a client bears, too: so no link ends."""
    with Server(*app_in(tmp_path)) as server:
        async with following(server.url, 10) as followers:
            began = time.monotonic()
            for _ in range(3):  # whatever each is just at
                server.freeze()
                await asyncio.sleep(seconds)
                server.thaw()
                await server.request("POST", "/publish?room=lobby", b"on")
            await everybody_has(followers, ["on"] * 3)
            assert [follower.lost_at(began) for follower in followers] == [None] * 10
            state = await server.get("/state")
            assert state["stood_still"] >= 3 * (seconds - 0.1)
            assert "holdfast_deaths_total 0" in state["metrics"]


async def test_a_server_that_is_stopped_for_longer_than_clients_bear_it_finds_them_all_again(tmp_path: Path) -> None:
    with Server(*app_in(tmp_path)) as server:
        async with following(server.url, 5) as followers, await server.dial() as patient:
            await patient.until("connected")
            began = time.monotonic()
            server.freeze()
            await until(lambda: all(follower.lost_at(began) for follower in followers), CLIENT_BOUND + 1)
            server.thaw()
            await server.request("POST", "/publish?room=lobby", b"on")
            await everybody_has(followers, ["on"])
            # Nobody was judged: not even one who only answers pings, and had answered none of them for so long.
            assert "holdfast_deaths_total 0" in (await server.get("/state"))["metrics"]
            await patient.send({"type": "ping"})
            await patient.until("pong")


async def test_a_client_that_is_stopped_is_gone_in_time_and_goes_on_when_it_runs_again(tmp_path: Path) -> None:
    """Its kernel acknowledges everything meanwhile, so that nothing but its silence tells."""
    script = (
        "import asyncio, holdfast\n"
        "async def main():\n"
        "    async with holdfast.connect(URL) as client, client.join('lobby') as room:\n"
        "        async for item in room: print(item.data if item.type == 'said' else item.type, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with Server(*app_in(tmp_path)) as server:
        program = script.replace("URL", repr(f"{server.url}/ws"))
        client = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SRC)}
        )
        assert client.stdout is not None
        try:
            async with asyncio.timeout(30):
                assert await asyncio.to_thread(client.stdout.readline) == "resync\n"
                stood_still = (await server.get("/state"))["stood_still"]
                client.send_signal(signal.SIGSTOP)
                stopped = time.monotonic()
                await server.request("POST", "/publish?room=lobby", b"meanwhile")
                at = (await server.get("/alone?with=0"))["at"]
                assert at - stopped <= BOUND + (await server.get("/state"))["stood_still"] - stood_still
                client.send_signal(signal.SIGCONT)
                told = [await asyncio.to_thread(client.stdout.readline)]
                while told[-1] != "{'text': 'meanwhile'}\n":
                    told.append(await asyncio.to_thread(client.stdout.readline))
                assert set(told[:-1]) <= {"resumed\n"}
        finally:
            client.kill()
            client.communicate()


# ── SIGKILL, with commands under way on every road ────────────────────────────────────────────────


@pytest.mark.parametrize("lives", [1, pytest.param(4, marks=pytest.mark.long)])
async def test_kill_9_under_commands_on_every_road_loses_and_repeats_none(tmp_path: Path, lives: int) -> None:
    dice = random.Random(lives)
    async with AsyncExitStack() as held:
        server = held.enter_context(Server(*app_in(tmp_path)))
        boxes = {
            road: await held.enter_async_context(Middlebox(server.port, **way)) for road, (way, _) in ROADS.items()
        }
        givers: dict[str, Follower] = {}
        for road, box in boxes.items():
            (givers[road],) = await held.enter_async_context(following(f"http://127.0.0.1:{box.port}", 1))
        for road, box in boxes.items():
            await until(lambda: any(ROADS[road][1] in asked for asked in box.asked), 30)  # noqa: B023
        for life in range(lives):
            given = [
                asyncio.create_task(giver.say(f"{road} {life} {number}"))
                for road, giver in givers.items()
                for number in range(8)
            ]
            enough = dice.randint(4, 16)
            await until(lambda: sum(command.done() for command in given) >= enough, 30)  # noqa: B023
            server.kill()
            acknowledged = {text: id for giver in givers.values() for text, id in giver.given.items()}
            await asyncio.to_thread(server.start)
            log = await in_log(server)
            assert acknowledged.items() <= log.items()
            async with asyncio.timeout(60):
                await asyncio.gather(*given)
        everything = {f"{road} {life} {number}" for road in ROADS for life in range(lives) for number in range(8)}
        log = await in_log(server)
        assert set(log) == everything
        assert {text: id for giver in givers.values() for text, id in giver.given.items()} == log
        await everybody_has(list(givers.values()), list(log))


async def in_log(server: Server) -> dict[str, str]:
    """Return the texts in the log, in its order, each with its id; none is there twice."""
    epoch = (await server.get("/short?room=lobby"))["cursor"].partition(":")[0]
    events = []
    cursor = f"{epoch}:0"
    while (answer := await server.get(f"/short?room=lobby&cursor={cursor}"))["data"]:
        events += answer["data"]
        cursor = answer["cursor"]
    log = {event["text"]: event["id"] for event in events}
    assert len(log) == len(events)
    return log
