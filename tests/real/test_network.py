"""
The network breaks: packets are lost, links are half-open, reset, or stuck half-way, an address is gone.

A server lets go of the dead in time, and leaves nothing behind; clients notice in time, come back, and have everything.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.frames import Frame, Opcode

from crowd import Link, allow_files
from faults import Middlebox
from holdfast import Limits
from holdfast.core.link import PROBE_SECONDS
from holdfast.server.runner import USER_TIMEOUT
from peers import RawPeer
from real.network import HERE, SERVER, FarServer, Network, network
from real.people import (
    BOUND,
    CLIENT_BOUND,
    INTERVAL,
    PATIENCE,
    ROADS,
    SLACK,
    TIMEOUT,
    app_in,
    bound,
    client_bound,
    everybody_has,
    following,
    until,
)
from swarm.swarm import Fault, swarm


class Crowd:
    """Peers that answer pings, are in a room, and never come back."""

    def __init__(self) -> None:
        self.welcomed: set[Link] = set()
        self.joined: set[Link] = set()
        self.gone: set[Link] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self.welcomed - self.gone:
            link.break_off()

    def hear(self, link: Link, message: Any) -> None:
        if message is None:
            self.joined.discard(link)
            self.gone.add(link)
        elif message["type"] == "connected" and link not in self.welcomed:
            self.welcomed.add(link)
            link.say({"type": "join", "room": "lobby"})
        elif message["type"] == "joined":
            self.joined.add(link)

    async def come(self, server: FarServer, number: int) -> None:
        """Come, a few at a time; whoever is told to come later does."""
        async with asyncio.timeout(30):
            while (missing := number - len(self.joined)) > 0:
                expected = len(self.joined | self.gone) + min(missing, 20)
                await asyncio.gather(*(Link.dial(server.port, self.hear, SERVER) for _ in range(min(missing, 20))))
                await until(lambda: len(self.joined | self.gone) >= expected, 10)  # noqa: B023


async def publish(server: FarServer, *texts: str) -> None:
    assert (await asyncio.to_thread(server.ask, "/publish?room=lobby", "POST", "\n".join(texts))).is_success


async def gone(server: FarServer, others: int = 0) -> tuple[float, float]:
    """Wait until no more than so many are connected; return when that was, and how long the server stood still."""
    at = (await asyncio.to_thread(server.ask, f"/alone?with={others}")).json()["at"]
    return at, (await asyncio.to_thread(server.ask, "/state")).json()["stood_still"]


async def state(server: FarServer) -> dict[str, Any]:
    return (await asyncio.to_thread(server.ask, "/state")).json()


def deaths(told: dict[str, Any]) -> int:
    return int(told["metrics"].rpartition("holdfast_deaths_total ")[2].split()[0])


def test_nothing_is_left_of_a_network_whatever_becomes_of_the_test() -> None:
    here = os.stat(HERE).st_ino
    with pytest.raises(ZeroDivisionError), network() as net:  # noqa: PT012
        networks = {os.stat(namespace.path).st_ino for namespace in (net.clients, net.road, net.server)}
        assert os.stat(HERE).st_ino in networks
        1 / 0  # noqa: B018
    assert os.stat(HERE).st_ino == here
    held = set()
    for path in (*Path("/proc/self/task").glob("*/ns/net"), *Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            held.add(path.stat().st_ino)
    assert not networks & held


def test_only_what_this_machine_does_not_let_us_do_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    powerless = ("setpriv", "--reuid=65534", "--clear-groups", "nft", "list", "ruleset")
    with network() as net, pytest.raises(PermissionError):
        net.road.run(*powerless)
    monkeypatch.setattr("real.network.CLIENTS", "10.77.1.999")  # a mistake of our own
    with pytest.raises(RuntimeError, match="any valid"), Network():
        pass


@pytest.mark.parametrize(
    ("number", "interval", "timeout"),
    [(200, INTERVAL, TIMEOUT), pytest.param(1000, 30.0, 10.0, marks=pytest.mark.long, id="1000 at the defaults")],
)
async def test_of_many_half_open_links_nothing_is_left_in_time_and_clients_come_back(
    net: Network, tmp_path: Path, number: int, interval: float, timeout: float
) -> None:
    allow_files()
    settings = {"INTERVAL": str(interval), "TIMEOUT": str(timeout)}
    with FarServer(net, *app_in(tmp_path), env=settings) as server, Crowd() as crowd:
        before = await state(server)
        async with following(server.url, 3) as followers:
            await crowd.come(server, number)
            await publish(server, "before")
            await everybody_has(followers, ["before"])
            stood_still = (await state(server))["stood_still"]
            net.cut()
            cut = time.monotonic()
            await publish(server, "meanwhile")  # so that something waits to be acknowledged, for ever
            # Nobody can come now. While we did not get the processor, some may have fallen silent, and come again.
            half_open = await state(server)
            at, stood_still_then = await gone(server)
            assert at - cut <= bound(interval, timeout) + stood_still_then - stood_still
            after = await state(server)
            async with asyncio.timeout(1):
                while (after["tasks"], after["sockets"]) != (before["tasks"], before["sockets"]):
                    after = await state(server)  # it has yet to see that our own questions are over
            assert deaths(after) == deaths(half_open) + half_open["connections"] >= number + 3  # each of them, once
            await until(lambda: all(follower.lost_at(cut) for follower in followers), client_bound(interval, timeout))
            assert all((follower.lost_at(cut) or 0) - cut <= client_bound(interval, timeout) for follower in followers)
            net.restore()
            await publish(server, "after")
            await everybody_has(followers, ["before", "meanwhile", "after"])
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("cut", [Network.cut_to_clients, pytest.param(Network.cut_to_server, marks=pytest.mark.long)])
async def test_a_road_that_carries_only_one_way_is_no_road(
    net: Network, tmp_path: Path, cut: Callable[[Network], None]
) -> None:
    with FarServer(net, *app_in(tmp_path)) as server, Crowd() as crowd:
        async with following(server.url, 3) as followers:
            await crowd.come(server, 20)
            await publish(server, "before")
            await everybody_has(followers, ["before"])
            stood_still = (await state(server))["stood_still"]
            cut(net)
            began = time.monotonic()
            await publish(server, "meanwhile")
            # Those who only answer are dead. A client that is told nothing asks once more, and that is a sign of life.
            at, stood_still_then = await gone(server, others=0 if cut is Network.cut_to_server else len(followers))
            assert at - began <= BOUND + stood_still_then - stood_still
            await gone(server)
            await until(lambda: all(follower.lost_at(began) for follower in followers), CLIENT_BOUND)
            net.restore()
            await publish(server, "after")
            await everybody_has(followers, ["before", "meanwhile", "after"])


async def test_a_command_that_is_stuck_half_way_takes_effect_once(net: Network, tmp_path: Path) -> None:
    """What is small passes, what is large does not: a tunnel on the way takes less than it says."""
    with FarServer(net, *app_in(tmp_path)) as server:
        async with following(server.url, 2) as followers:
            giver, other = followers
            await giver.say("small")
            net.cut_large()
            began = time.monotonic()
            large = asyncio.create_task(giver.say("x" * 30_000))
            await until(lambda: giver.lost_at(began), CLIENT_BOUND)
            assert other.lost_at(began) is None
            assert not large.done()
            net.restore()
            async with asyncio.timeout(PATIENCE):
                await large
            await everybody_has(followers, ["small", "x" * 30_000])
            assert [giver.given[text] for text in giver.texts] == other.ids


@pytest.mark.long
async def test_half_a_message_holds_nothing_up_when_the_rest_is_lost(net: Network, tmp_path: Path) -> None:
    with FarServer(net, *app_in(tmp_path)) as server:
        peer = RawPeer(server.port, address=SERVER)
        message = b'{"type":"say","room":"lobby","text":"half"}' + b" " * 10_000
        frame = Frame(Opcode.TEXT, message).serialize(mask=True)
        peer.send_bytes(frame[:5_000])
        stood_still = (await state(server))["stood_still"]
        net.cut()
        cut = time.monotonic()
        peer.send_bytes(frame[5_000:])
        at, stood_still_then = await gone(server)
        assert at - cut <= BOUND + stood_still_then - stood_still
        peer.close()
        assert "Traceback" not in server.log.read_text()


async def test_whose_address_is_another_goes_on_where_they_stood(net: Network, tmp_path: Path) -> None:
    with FarServer(net, *app_in(tmp_path)) as server:
        async with following(server.url, 3) as followers:
            await publish(server, "at home")
            await everybody_has(followers, ["at home"])
            users = [follower.client.user for follower in followers]
            net.move_clients()
            moved = time.monotonic()
            await publish(server, "on the way")
            await until(lambda: all(follower.lost_at(moved) for follower in followers), CLIENT_BOUND)
            await everybody_has(followers, ["at home", "on the way"])
            assert [follower.client.user for follower in followers] == users
            assert (await gone(server, others=3))[0] - moved < PATIENCE


async def test_links_that_are_reset_at_random_lose_and_repeat_nothing(net: Network, tmp_path: Path) -> None:
    texts = [str(number) for number in range(20)]
    with FarServer(net, *app_in(tmp_path)) as server:
        async with following(server.url, 6) as followers:
            for place, text in enumerate(texts):
                if place % 10 == 5:
                    net.reset(0.3)
                    before = time.monotonic()
                    await publish(server, text)
                    await until(lambda: any(follower.lost_at(before) for follower in followers), CLIENT_BOUND)  # noqa: B023
                    net.restore()
                else:
                    await publish(server, text)
            await everybody_has(followers, texts)


@pytest.mark.long
async def test_event_streams_and_polls_whose_readers_vanish_are_ended_by_the_kernel(
    net: Network, tmp_path: Path
) -> None:
    """Idle ones: a comment, which nobody acknowledges, is on its way within 15 s."""
    with FarServer(net, *app_in(tmp_path)) as server, ExitStack() as held:
        for path in ["/events?room=lobby"] * 20 + ["/poll?room=lobby"] * 5:
            sock = held.enter_context(socket.create_connection((SERVER, server.port)))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(10):
            while (await state(server))["connections"] < 25:
                pass
        net.cut()
        cut = time.monotonic()
        at, _ = await gone(server)
        assert at - cut <= Limits().stream_heartbeat + USER_TIMEOUT + 5


@pytest.mark.long
@pytest.mark.parametrize("road", [road for road in ROADS if road != "websocket"])
async def test_a_client_that_goes_by_http_notices_a_dead_link_and_has_everything_too(
    net: Network, tmp_path: Path, road: str
) -> None:
    """Behind a proxy that takes no WebSockets: the link to that stays, and is silent."""
    way, asks = ROADS[road]
    with FarServer(net, *app_in(tmp_path)) as server:
        async with AsyncExitStack() as held:
            box = await held.enter_async_context(Middlebox(server.port, SERVER, **way))
            url = f"http://127.0.0.1:{box.port}"
            followers = await held.enter_async_context(following(url, 1))
            await until(lambda: any(asks in asked for asked in box.asked), 30)
            await followers[0].say("before")
            await everybody_has(followers, ["before"])
            net.cut()
            cut = time.monotonic()
            await publish(server, "meanwhile")
            given = asyncio.create_task(followers[0].say("given"))
            # A stream may be silent for 15 s, and a poll is held as long: 10 s more, and 3 for the answer.
            await until(lambda: followers[0].lost_at(cut), 15 + 10 + PROBE_SECONDS + SLACK)
            net.restore()
            async with asyncio.timeout(PATIENCE):
                await given
            await everybody_has(followers, ["before", "meanwhile", "given"])


# ── a swarm on every road ─────────────────────────────────────────────────────────────────────────


def of_network(net: Network, dice: random.Random) -> list[tuple[str, Fault]]:
    """Return what befalls a network."""

    def fault(begin: Callable[[], None], least: float, most: float) -> Fault:
        async def happen() -> int:
            begin()
            await asyncio.sleep(dice.uniform(least, most))
            return net.restore()

        return happen

    return [
        ("nothing passes", fault(net.cut, 0.2, 4)),
        ("nothing passes to the server", fault(net.cut_to_server, 0.2, 4)),
        ("nothing passes to clients", fault(net.cut_to_clients, 0.2, 4)),
        ("nothing large passes", fault(net.cut_large, 0.2, 4)),
        ("10 % is lost", fault(lambda: net.lose(0.1), 1, 4)),
        ("30 % is lost", fault(lambda: net.lose(0.3), 1, 4)),
        ("5 % is reset", fault(lambda: net.reset(0.05), 0.5, 2)),
        ("everything is reset", fault(net.reset, 0.1, 1)),
    ]


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_swarm_on_every_road_has_everything_whatever_the_network_does(
    net: Network, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    with FarServer(net, *app_in(tmp_path)) as server:
        await swarm(
            server.url, server.url, [of_network(net, dice)],
            clients=60, rooms=5, publications=600, seconds=30, dice=dice,
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("share", [0.1, 0.3])
async def test_where_much_is_lost_all_the_time_everything_arrives_all_the_same(
    net: Network, tmp_path: Path, share: float
) -> None:
    async def lose() -> int:
        net.lose(share)
        await asyncio.sleep(15)
        return net.restore()

    with FarServer(net, *app_in(tmp_path), env={"INTERVAL": "5", "TIMEOUT": "5"}) as server:
        dice = random.Random(1)
        faults = [[(f"{share:.0%} is lost", lose)]]
        await swarm(server.url, server.url, faults, clients=40, rooms=4, publications=200, seconds=12, dice=dice)
