"""Somebody is who they are for as long as their token says, to the second, also on a link that goes on."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Hub, State, User
from holdfast.testing import Sea


def test_a_link_ends_with_the_token_by_which_it_was_let_in() -> None:
    hub = Hub("numbers.db", require_login=True)

    async def test(sea: Sea) -> None:
        server = sea.serve(Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan))
        await server.ready()
        token = hub.token(User("ann", "Ann"), 600.0)
        async with sea.connect(server, token=token) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            await sea.sleep(590)
            await hub.publish("lobby", "number", {"number": 1})
            await sea.sleep(5)
            assert ann.is_live
            await sea.sleep(10)
            assert (ann.status.state, ann.status.code) == (State.CLOSED, 4001)
            assert told.data == [{"number": 1}]

    with Sea() as sea:
        sea.run(test(sea))
