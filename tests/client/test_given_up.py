"""What comes from a link that was given up is passed over, however late it comes, and nothing is left of it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Hub
from holdfast.core.link import Advised
from holdfast.testing import Sea


def test_what_comes_from_a_link_that_was_given_up_is_passed_over() -> None:
    hub = Hub("numbers.db")

    async def test(sea: Sea) -> None:
        server = sea.serve(Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan))
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            given_up = ann._road
            assert given_up is not None
            sea.cut(ann)
            await sea.sleep(60)
            assert ann.is_live
            assert ann._road is not given_up
            epoch = hub.opened.store.epoch
            late = f'{{"type":"number","room":"lobby","id":"{epoch}:1","number":1}}'
            ann._put(given_up, late)  # type: ignore[arg-type]
            await sea.sleep(1)
            assert told.data == []

    with Sea() as sea:
        sea.run(test(sea))


def test_of_a_link_that_breaks_while_another_is_dialled_beside_it_neither_is_left() -> None:
    hub = Hub("numbers.db")

    async def test(sea: Sea) -> None:
        server = sea.serve(Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan))
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            (first,) = sea._links(ann)
            ann._put(None, Advised(0.0, 0.0))  # as a server says that is about to end
            while ann._spare is None:
                await sea.sleep(0.0001)
            first.reset()
            await sea.sleep(60)
            assert ann.is_live
            assert len(sea._links(ann)) == len(hub.opened.hands.connections) == 1
            assert told.data == []

    with Sea() as sea:
        sea.run(test(sea))
