"""A carrier reaches those who call by it; that it does not reach all is said if it stays so."""

from __future__ import annotations

import pytest

from holdfast.store.postgres_lease import RENEW_SECONDS
from holdfast.store.reach import REACH_SECONDS, Reach

SAID = "Pigeon does not reach every other server (not 1 of 2): what goes by it goes by the database too"


def test_it_reaches_those_who_have_called_of_late() -> None:
    reach = Reach("Pigeon")
    assert reach.is_all(set(), 0.0)
    assert not reach.is_all({"a"}, 0.0)
    reach.meet("a", 0.0)
    assert reach.is_all({"a"}, REACH_SECONDS - 0.1)
    assert not reach.is_all({"a", "b"}, 1.0)
    assert not reach.is_all({"a"}, REACH_SECONDS)
    assert REACH_SECONDS > 3 * RENEW_SECONDS  # two greetings may be lost


def test_that_it_does_not_reach_all_is_said_once_and_not_while_somebody_comes_or_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reach = Reach("Pigeon")
    for second in range(100):
        reach.meet("a", second)
        if 10 <= second < 20 or second >= 60:  # another one is not met for a moment, and then for good
            reach.look({"a", "b"}, second)
        else:
            reach.look({"a"}, second)
        assert caplog.messages == ([SAID] if second > 60 + REACH_SECONDS else [])
    reach.look({"a"}, 100.0)
    for second in range(100, 120):
        reach.meet("a", second)
        reach.look({"a", "b"}, second)
    assert caplog.messages == [SAID] * 2
