"""The same seed is the same run, to the last byte, and a run that differs in one is another."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from holdfast.testing.endpoint import Socket
from holdfast.testing.network import Network, SeaLoop, Weather
from holdfast.testing.trace import Trace
from holdfast.testing.world import Plan, World, run

#: Much is said in it by everybody, and it is short.
PLAN = Plan(clients=2, seconds=5.0, faults=2)


def traced(said: bytes, *, to_server: bool = True, seed: int = 1) -> str:
    """Return the trace of a link on which this is said."""
    loop, trace = SeaLoop(), Trace()
    network = Network(loop, random.Random(seed), Weather((0.01, 0.1), torn=0.5))
    network.on_arrival.append(
        lambda end, piece: trace.arrived(loop.time(), end.wire.number, at_server=end is end.wire.ends[1], piece=piece)
    )

    async def say() -> None:
        await loop.create_server(asyncio.Protocol, sock=Socket(("server", 80)))
        await loop.create_connection(asyncio.Protocol, "server", 80)
        await asyncio.sleep(1)
        (wire,) = network.wires
        wire.ends[0 if to_server else 1].write(said)
        await asyncio.sleep(1)

    loop.run_until_complete(say())
    loop.close()
    return str(trace)


def test_one_byte_one_moment_or_the_other_direction_is_another_trace() -> None:
    same = traced(b"hello")
    assert same == traced(b"hello")
    others = [traced(b"hellp"), traced(b"hello", to_server=False), traced(b"hello", seed=2)]
    assert len({same, *others}) == 4


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_seed_is_the_same_run_whatever_this_process_has_run_before(nodes: int) -> None:
    plan = replace(PLAN, nodes=nodes)
    one, other, again = (run(seed, plan).trace for seed in (1, 2, 1))
    assert one == again != other


def test_one_byte_that_a_client_hears_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(1, PLAN).trace
    new_text = World.new_text
    monkeypatch.setattr(World, "new_text", lambda self: new_text(self).replace("7", "x"))
    assert run(1, PLAN).trace != before
