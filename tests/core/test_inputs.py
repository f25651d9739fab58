"""Whatever happens is a frozen value, and the mind knows what to do with each."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from holdfast.core import inputs
from holdfast.core.hub import Hub, Rules
from holdfast.core.ready import Span
from holdfast.protocol.codec import Codec
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import HeartbeatTerms, Terms, User

codec = Codec()
ANN = User("ann", "Ann")

#: One of each, none of which asks for what is not there.
HAPPENED: list[inputs.Input] = [
    inputs.Opened("link"),
    inputs.Greeted("link"),
    inputs.Identified("link", "session", ANN),
    inputs.Entered("link", "lobby", None, Span(1, 0)),
    inputs.Asked("link", "lobby", Position("k3f9", 0)),
    inputs.Typed("link", "lobby", True),
    inputs.Announced("lobby", codec.encode_event("lobby", "wave", b"{}")),
    inputs.Published("lobby", ()),
    inputs.Page("lobby", 0, ()),
    inputs.Full("link"),
    inputs.Drained("link"),
    inputs.Settled(),
    inputs.Listened("lobby", Span(1, 0)),
    inputs.Unlistened("lobby"),
    inputs.Went("link", "lobby"),
    inputs.Expelled("ann"),
    inputs.Met("lobby"),
    inputs.Taken("session", ("lobby",)),
    inputs.Awaited("session", ANN, ()),
    inputs.Departed("lobby", "session"),
    inputs.TypedElsewhere("lobby", "other", ANN, active=True),
    inputs.Lost("link", inputs.Ending.CLEAN),
]


def test_every_input_is_among_these() -> None:
    assert {type(input) for input in HAPPENED} == set(get_args(inputs.Input))


def test_the_mind_knows_what_to_do_with_each() -> None:
    rules = Rules(HeartbeatTerms(30.0, 10.0), Terms(65536, 50.0, 100), "room", 5.0, 10.0)
    mind = Hub(codec, "k3f9", rules)
    for input in HAPPENED:
        assert isinstance(mind.receive(input, 0.0), list)
    assert mind.deadline() is None


@pytest.mark.parametrize("input", HAPPENED, ids=lambda input: type(input).__name__)
def test_what_has_happened_cannot_be_changed(input: Any) -> None:
    for name in input.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(input, name, None)
