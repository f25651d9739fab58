"""How often may somebody do something?"""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.server.rate import Allowance, Allowances

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=60)


@given(STEPS)
def test_each_of_many_may_what_they_might_alone(steps: list[tuple[str, float]]) -> None:
    many, alone, now = Allowances(2.0, 4.0), dict[str, Allowance](), 0.0
    for name, pause in steps:
        now += pause
        mine = alone.setdefault(name, Allowance(2.0, 4.0, now))
        assert many.take(name, now) == mine.take(now)


def test_whoever_has_used_up_theirs_has_no_more_when_others_are_forgotten() -> None:
    many = Allowances(2.0, 4.0)
    many.take("b", 0.0)
    assert [many.take("a", 1.9) for _ in range(5)] == [True] * 4 + [False]
    assert not many.take("a", 2.0)


def test_those_who_have_gone_are_forgotten() -> None:
    many = Allowances(50.0, 100.0)
    for n in range(100_000):
        many.take(f"user-{n}", n / 1000)
    assert len(many._now | many._before) <= 2 * 2 * 1000 + 1  # of twice as long as it takes to fill
