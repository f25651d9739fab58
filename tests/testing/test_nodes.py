"""What is seen of servers that share a database is what was promised of them, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.testing.nodes import AWAY, LEASE, Nodes

CUT_OFF = "server-1 is cut off since 1.000, and serves"
SHOWN = "server-1 is gone since 1.0, and its people are shown"


class Shared:
    """Two servers that share a database; ann is at the first, and shown at the other."""

    def __init__(self) -> None:
        self.now, self.later = 1.0, list[tuple[float, Callable[[], None]]]()
        self.sessions: list[Any] = [SimpleNamespace(user=SimpleNamespace(user_id="ann"))]
        self.elsewhere: list[Any] = []
        self.hands = SimpleNamespace(
            departure=SimpleNamespace(reason=None),
            connections={"ann": 1},
            mind=SimpleNamespace(sessions=lambda: self.sessions),
        )
        self.hub = SimpleNamespace(_lives=object(), opened=SimpleNamespace(hands=self.hands))
        other = SimpleNamespace(
            opened=SimpleNamespace(hands=SimpleNamespace(mind=SimpleNamespace(sessions=lambda: self.elsewhere)))
        )
        self.hubs = [self.hub, other]
        self.process = SimpleNamespace(was_stopped=False)
        self.server: Any = SimpleNamespace(
            hub=self.hub, process=self.process, address=("server-1", 80), kill=lambda felt: self.hubs.remove(self.hub)
        )
        self.way = SimpleNamespace(is_cut=True)
        self.shown = {"ann"}
        self.violations: list[str] = []
        self.reached: Counter[str] = Counter()
        world: Any = SimpleNamespace(
            loop=SimpleNamespace(time=lambda: self.now),
            later=lambda seconds, what: self.later.append((self.now + seconds, what)),
            rooms=("room-0",),
            stood_still=0.0,
            report=SimpleNamespace(reached=self.reached),
            verdict=SimpleNamespace(
                wrong=self.violations.append, hubs=lambda: self.hubs, shows=lambda room, user: user in self.shown
            ),
        )
        self.world = world
        self.nodes = Nodes.__new__(Nodes)
        self.nodes._world, self.nodes.servers, self.nodes.doubtful_until = world, [self.server], 0.0
        self.nodes.ways = [self.way]  # type: ignore[list-item]

    def wait(self, seconds: float) -> list[str]:
        """Let so much time pass; return what is said."""
        until = self.now + seconds
        while self.later and self.later[0][0] <= until:
            self.now, what = self.later.pop(0)
            what()
        self.now = until
        return self.violations


def test_who_is_cut_off_may_serve_for_as_long_as_was_said_and_no_longer() -> None:
    seen = Shared()
    seen.nodes.expect_serves_nobody(seen.server)
    assert seen.wait(AWAY - 0.2) == []
    assert seen.wait(0.4) == [f"{CUT_OFF} 1 clients"]


@pytest.mark.parametrize(("reason", "connections"), [(None, {}), ("away", {"ann": 1})])
def test_who_is_cut_off_lets_nobody_in_and_sends_everybody_away(reason: str | None, connections: object) -> None:
    seen = Shared()
    seen.hands.__dict__.update(departure=SimpleNamespace(reason=reason), connections=connections)
    seen.nodes.expect_serves_nobody(seen.server)
    assert len(seen.wait(AWAY + 0.2)) == 1
    good = Shared()
    good.hands.__dict__.update(departure=SimpleNamespace(reason="away"), connections={})
    good.nodes.expect_serves_nobody(good.server)
    assert good.wait(AWAY + 0.2) == []


@pytest.mark.parametrize(
    "happen",
    [
        lambda seen: setattr(seen.way, "is_cut", False),
        lambda seen: setattr(seen.process, "was_stopped", True),
        lambda seen: setattr(seen.server, "process", object()),
        lambda seen: seen.hubs.remove(seen.hub),
    ],
    ids=["reached", "stopped", "started again", "ended"],
)
def test_who_is_cut_off_no_more_may_serve(happen: Callable[[Shared], object]) -> None:
    seen = Shared()
    seen.nodes.expect_serves_nobody(seen.server)
    seen.wait(1)
    happen(seen)
    assert seen.wait(2 * AWAY) == []


def test_the_people_of_a_server_that_was_killed_are_shown_no_longer_than_promised() -> None:
    seen = Shared()
    seen.nodes.kill(seen.server)
    assert seen.hubs != [seen.hub]
    assert seen.wait(LEASE - 0.2) == []
    assert seen.wait(0.4) == [SHOWN]
    good = Shared()
    good.nodes.kill(good.server)
    good.wait(1)
    good.shown.clear()
    assert good.wait(LEASE) == []
    assert good.reached == {"no ghosts": 1}


@pytest.mark.parametrize(
    "happen",
    [
        lambda seen: seen.elsewhere.extend(seen.sessions),
        lambda seen: setattr(seen.world, "stood_still", 3.0),
        lambda seen: setattr(seen.nodes, "doubtful_until", 3.0),
    ],
    ids=["there again", "one stood still", "in doubt"],
)
def test_who_may_still_be_shown_is_no_ghost(happen: Callable[[Shared], object]) -> None:
    seen = Shared()
    seen.nodes.kill(seen.server)
    seen.wait(1)
    happen(seen)
    assert seen.wait(LEASE) == []
