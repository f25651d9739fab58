"""Effects come together in their order, and what is told to many is encoded once."""

from __future__ import annotations

import pytest

from holdfast.core.effects import Close, Deliver, Effect, Effects, Read
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import Left, Pong, ServerPing

codec = Codec()


@pytest.fixture
def effects() -> Effects:
    return Effects(codec)


def test_they_are_returned_in_their_order_and_once(effects: Effects) -> None:
    read, close = Read("lobby", 5), Close("ann", 4001, "why")
    assert not effects
    effects.add(read)
    effects.say("ann", ServerPing())
    effects.add(close)
    assert effects
    first, said, last = effects.take()
    assert (first, last) == (read, close)
    assert isinstance(said, Deliver)
    assert (said.to, [frame.text for frame in said.frames]) == (("ann",), [b'{"type":"ping"}'])
    assert not effects
    assert effects.take() == []


def test_what_is_told_to_many_is_one_delivery(effects: Effects) -> None:
    effects.tell(("ann", "bob"), Left("lobby"), Pong())
    (told,) = effects.take()
    assert isinstance(told, Deliver)
    assert told.to == ("ann", "bob")
    assert [frame.type for frame in told.frames] == ["left", "pong"]


def test_nothing_is_delivered_to_nobody_and_nobody_is_delivered_nothing(effects: Effects) -> None:
    effects.tell((), ServerPing())
    effects.deliver((), (codec.encode(ServerPing()),))
    effects.deliver(("ann",), ())
    assert effects.take() == []


@pytest.mark.parametrize("effect", [Deliver(("ann",), ()), Read("lobby", 5), Close("ann", 4001, "why")])
def test_an_effect_cannot_be_changed(effect: Effect) -> None:
    for name in effect.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(effect, name, None)
