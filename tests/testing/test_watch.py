"""What is seen over a server's shoulder is seen when it is time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import User
from holdfast.core import heartbeat
from holdfast.core.inputs import Ending, Identified, Input, Lost, Taken, Went
from holdfast.testing import world
from holdfast.testing.visitor import Visitor
from holdfast.testing.watch import GRACE, TIMEOUT, WAITING, Watch

ROOM = "room-0"


@pytest.mark.parametrize("is_put_out", [False, True])
def test_who_broke_off_must_be_shown_within_the_grace_and_not_after_it_where_the_server_stands_still(
    is_put_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(self: world.World) -> None:
        (server,) = self.servers
        server.start()
        ann, bob = (Visitor(self.loop, name, server.url, (ROOM,), "resume") for name in ("ann", "bob"))
        self.visitors += [ann, bob]
        await asyncio.sleep(5)
        ann.process.kill()
        await asyncio.sleep(2)
        bob.process.kill()
        await asyncio.sleep(1)
        assert server.hub is not None
        assert {user.user_id for user in server.hub.members(ROOM)} == {ann.user_id, bob.user_id}
        if is_put_out:
            await server.hub.remove(str(bob.user_id), ROOM)
        self.stand_still(server, 15)  # when it goes on, what was due for ann comes first, and bob's grace is over too
        await asyncio.sleep(20)
        assert server.hub.members(ROOM) == []
        await server.stop()

    monkeypatch.setattr(world.World, "_play", play)
    violations = world.run(1).violations
    assert ["longer, within the grace" in violation for violation in violations] == [True] * is_put_out


LINK: Any = "a connection of ann"
ANN = User("ann", "Ann")


class Connection:
    def __init__(self, transport: object) -> None:
        self._transport = transport


class Seen:
    """A server over whose shoulder is looked; ann is in a room."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[object] = []
        self.shown = [SimpleNamespace(user_id="ann")]
        self.later: list[tuple[float, Callable[[], None]]] = []
        client = SimpleNamespace(is_alive=True, was_stopped=False)
        self.link = SimpleNamespace(
            wire=SimpleNamespace(was_silent=False), peer=SimpleNamespace(process=client), most=WAITING
        )
        connection = Connection(self.link)
        session = SimpleNamespace(user=ANN, rooms={ROOM: object()})
        self.rooms: dict[str, object] = {ROOM: object()}
        mind = SimpleNamespace(
            session=lambda connection: session,
            room=self.rooms.get,
            receive=lambda input, now: [],
            _by_id={"s1": session},
        )
        self.hands: Any = SimpleNamespace(
            tell=self.told.append,
            lost=lambda connection, ending: self.told.append(ending),
            _beat_once=lambda effect, connection: None,
            _beat=SimpleNamespace(_stalled=0.0),
            mind=mind,
            connections={connection},
            departure=SimpleNamespace(is_final=False),
        )
        self.hub: Any = SimpleNamespace(opened=SimpleNamespace(hands=self.hands), members=lambda room: self.shown)
        self.violations: list[str] = []
        self.world: Any = SimpleNamespace(
            loop=SimpleNamespace(time=lambda: self.now),
            left={},
            nodes=None,
            servers=[SimpleNamespace(hub=self.hub)],
            later=lambda seconds, what: self.later.append((seconds, what)),
            report=SimpleNamespace(reached=Counter()),
            verdict=SimpleNamespace(wrong=self.violations.append),
        )
        self.connection: Any = connection
        self.watch = Watch(self.world, self.hub)

    def dies(self, *, after: float = TIMEOUT, of: Ending = Ending.DEAD) -> list[str]:
        """Have the connection die so long after a ping; return what is said."""
        self.hands._beat_once(heartbeat.Ping(LINK), self.connection)
        self.now += after
        self.hands.lost(self.connection, of)
        assert self.told == [of]
        return self.violations


def silent(seen: Seen) -> None:
    seen.link.wire.was_silent = True


def killed(seen: Seen) -> None:
    seen.link.peer.process.is_alive = False


def stopped(seen: Seen) -> None:
    seen.link.peer.process.was_stopped = True


def unknown(seen: Seen) -> None:
    seen.link.peer.process = None


@pytest.mark.parametrize("is_bad", [silent, killed, stopped, unknown])
def test_who_may_be_taken_for_dead_is_cut_when_it_is_time_and_not_before(is_bad: Callable[[Seen], None]) -> None:
    in_time, early = Seen(), Seen()
    is_bad(in_time)
    is_bad(early)
    assert in_time.dies() == []
    assert early.dies(after=TIMEOUT - 0.1) == ["a client was taken for dead, and was pinged at 100.000"]


def test_nobody_is_taken_for_dead_whose_link_is_good() -> None:
    assert Seen().dies() == ["a client was taken for dead whose link is good"]
    assert Seen().dies(after=0.1, of=Ending.UNCLEAN) == []


def test_no_more_waits_for_a_connection_than_may() -> None:
    seen = Seen()
    seen.link.most += 1
    assert seen.dies(of=Ending.UNCLEAN) == [f"{WAITING + 1} bytes have waited for a connection"]


NO_LONGER = f"a user has broken off, or come back, and is shown in {ROOM} no longer, within the grace"
BREAKS_OFF, COMES_BACK = Lost(LINK, Ending.UNCLEAN), Identified(LINK, "s1", ANN, replaces="s1")


@pytest.mark.parametrize("input", [BREAKS_OFF, COMES_BACK])
def test_who_breaks_off_or_comes_back_is_shown_at_once(input: Input) -> None:
    seen = Seen()
    seen.hands.tell(input)
    assert seen.violations == []
    seen.shown = [SimpleNamespace(user_id="bob")]
    seen.hands.tell(input)
    assert seen.violations == [NO_LONGER]


def look_later(happen: Callable[[Seen], object]) -> list[str]:
    """Have ann break off, and be shown no longer when something has happened; return what is said after the grace."""
    seen = Seen()
    seen.hands.tell(BREAKS_OFF)
    ((seconds, look),) = seen.later
    assert seconds == GRACE
    seen.now += 1
    seen.shown = []
    happen(seen)
    look()
    return seen.violations


@pytest.mark.parametrize(
    "happen",
    [
        lambda seen: seen.hands.tell(Went(LINK, ROOM)),
        lambda seen: seen.hands.tell(Lost(LINK, Ending.CLEAN)),
        lambda seen: seen.hands.tell(Taken("s1", (ROOM,))),
        lambda seen: seen.world.servers.clear(),
        lambda seen: setattr(seen.hands.departure, "is_final", True),
        lambda seen: setattr(seen.hub.opened, "hands", None),
        lambda seen: (setattr(seen.world, "nodes", object()), seen.rooms.clear()),
    ],
    ids=["left", "ended", "went on elsewhere", "server gone", "server leaves", "log anew", "room elsewhere"],
)
def test_who_is_shown_no_longer_after_they_left_is_not_missed(happen: Callable[[Seen], object]) -> None:
    assert look_later(happen) == []


@pytest.mark.parametrize(
    "happen",
    [lambda seen: None, lambda seen: setattr(seen.world, "nodes", object()), lambda seen: seen.rooms.clear()],
    ids=["nothing", "one of several servers", "one server"],
)
def test_who_is_shown_no_longer_within_the_grace_is_missed(happen: Callable[[Seen], object]) -> None:
    assert look_later(happen) == [NO_LONGER]
