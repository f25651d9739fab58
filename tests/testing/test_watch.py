"""What is seen over a server's shoulder is seen when it is time."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.testing import world
from holdfast.testing.visitor import Visitor

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
