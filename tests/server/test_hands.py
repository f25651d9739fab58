"""The alarm of the machines rings at the time they ask for, on every event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from holdfast.server.hands import Alarm

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_an_alarm_rings_once_when_it_is_due_also_if_that_is_past(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        rings: list[float] = []
        alarm = Alarm(loop, lambda: rings.append(loop.time()))
        now = loop.time()
        for when in (now - 5, now - 5, now - 4, now, now + 0.05, now + 0.1):
            alarm.set(when)
            alarm.set(when)
        await asyncio.sleep(0.3)
        assert len(rings) == 1
        assert now + 0.09 < rings[0] < now + 0.29
        alarm.set(now - 5)
        await asyncio.sleep(0.01)
        assert len(rings) == 2
        alarm.set(now - 5)  # again: it has rung since
        await asyncio.sleep(0.01)
        assert len(rings) == 3
        alarm.set(loop.time() + 0.02)
        alarm.set(None)
        await asyncio.sleep(0.05)
        assert len(rings) == 3

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())
