"""What a client does in the sea is seen, whichever way it does it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import holdfast
from holdfast.core import link
from holdfast.core.roads import Road
from holdfast.testing.history import Violation
from holdfast.testing.visitor import Visitor


def test_the_sea_sees_every_dial_also_beside_a_link_that_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: 100.0)
    visitor = object.__new__(Visitor)
    visitor.name, visitor.violations, visitor.on_wrong = "ann", [], lambda: None
    visitor._dialed, visitor._loop, visitor.is_put_out = float("-inf"), clock, False  # type: ignore[assignment]
    client = holdfast.connect("http://localhost")
    monkeypatch.setattr(client, "_spawn", lambda work: work.close())
    visitor._listen_in(client)
    client._carry([link.Dial(Road.WEBSOCKET)])
    assert visitor.violations == []
    client._carry([link.Move()])
    assert [str(wrong) for wrong in visitor.violations] == ["ann has dialed, and 0.000 s later again"]


def test_who_was_put_out_and_dials_again_is_seen() -> None:
    visitor = object.__new__(Visitor)
    visitor.name, visitor.is_put_out = "ann", True
    visitor.client = SimpleNamespace(status=SimpleNamespace(code=4003))  # type: ignore[assignment]
    with pytest.raises(Violation, match="ann was put out, and comes back"):
        visitor._may_dial()
