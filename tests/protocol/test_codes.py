"""The number that ends a connection says whether to come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.codes import CloseCode, may_return

STAY_AWAY = {
    CloseCode.MALFORMED,
    CloseCode.UNAUTHORIZED,
    CloseCode.FORBIDDEN,
    CloseCode.TAKEN_OVER,
    CloseCode.VERSION,
}


@pytest.mark.parametrize("code", CloseCode)
def test_what_is_about_you_keeps_you_away_and_everything_else_lets_you_return(code: CloseCode) -> None:
    assert may_return(code) is (code not in STAY_AWAY)


@given(st.integers(0, 65535))
def test_a_code_that_nobody_knows_is_retried_unless_it_is_40xx(code: int) -> None:
    assert may_return(code) is (code // 100 != 40)


def test_40xx_mirrors_http() -> None:
    assert {code.name: code % 100 for code in STAY_AWAY} == {
        "MALFORMED": 0,
        "UNAUTHORIZED": 1,
        "FORBIDDEN": 3,
        "TAKEN_OVER": 9,
        "VERSION": 26,
    }
    assert (CloseCode.AUTH_DEADLINE, CloseCode.TOO_FAST) == (4108, 4129)
