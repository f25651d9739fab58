"""What is judged in the sea is what was promised, and no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import Road
from holdfast.core.link import State
from holdfast.testing.verdict import Verdict


def somebody(name: str, *, is_joined: bool = True, road: Road = Road.WEBSOCKET) -> Any:
    room = SimpleNamespace(replica=SimpleNamespace(is_joined=is_joined))
    status = SimpleNamespace(state=State.LIVE, road=road)
    return SimpleNamespace(name=name, user_id=name, client=SimpleNamespace(status=status), rooms={"room-0": room})


def judged(visitors: list[Any], shown: list[str]) -> list[str]:
    hub = SimpleNamespace(_lives=object(), members=lambda room: [SimpleNamespace(user_id=name) for name in shown])
    report = SimpleNamespace(violations=[])
    world: Any = SimpleNamespace(
        visitors=visitors,
        rooms=("room-0",),
        servers=[SimpleNamespace(hub=hub)],
        loop=SimpleNamespace(time=lambda: 1.0),
        report=report,
    )
    Verdict(world).expect_shown()
    return report.violations  # type: ignore[no-any-return]


def test_everybody_who_is_there_must_be_shown_once_and_nobody_else() -> None:
    ann, bob = somebody("ann"), somebody("bob")
    assert judged([ann, bob], ["bob", "ann"]) == []
    for shown in (["ann"], ["ann", "bob", "bob"], ["ann", "bob", "eve"]):
        assert len(judged([ann, bob], shown)) == 1


@pytest.mark.parametrize("shown", [["ann"], ["ann", "bob"]])
def test_who_is_on_the_way_into_a_room_may_be_shown_there_already_and_need_not(shown: list[str]) -> None:
    assert judged([somebody("ann"), somebody("bob", is_joined=False)], shown) == []


def test_who_reads_by_http_may_not_be_shown() -> None:
    ann, bob = somebody("ann"), somebody("bob", road=Road.HTTP)
    assert judged([ann, bob], ["ann"]) == []
    assert len(judged([ann, bob], ["ann", "bob"])) == 1
