"""One link at a time, probed before it is given up, abandoned rather than waited for, and dialed with patience."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.backoff import FLOOR
from holdfast.core.link import (
    GREETING_SECONDS,
    LATE_SECONDS,
    LIFE,
    PROBE_SECONDS,
    Abandon,
    Advised,
    Authorize,
    Authorized,
    Dial,
    Heard,
    Introduce,
    Link,
    LinkEffect,
    LinkInput,
    Lost,
    Move,
    Moved,
    Nudged,
    Opened,
    Paused,
    Probe,
    Rejoin,
    Start,
    State,
    Status,
    Stop,
    Unpaused,
    Welcomed,
)
from holdfast.core.roads import Road

WELCOME = Welcomed(30.0, 10.0)


class Client:
    """Carries out a link, and notes what it wants."""

    def __init__(self, *, jitter: bool = False, renewable: bool = False) -> None:
        self.link = Link(jitter=jitter, renewable=renewable)
        self.now = 100.0
        self.did: list[LinkEffect] = []
        self.dialed: list[float] = []  # when

    def note(self, effects: list[LinkEffect]) -> list[LinkEffect]:
        """Note what it wants done now."""
        self.did += effects
        self.dialed += [self.now for effect in effects if isinstance(effect, Dial | Move)]
        return effects

    def told(self, *inputs: LinkInput, dice: float = 0.5) -> list[LinkEffect]:
        """Tell it what happened; return what it wants done."""
        return self.note([effect for input in inputs for effect in self.link.receive(input, self.now, dice)])

    def waits(self, seconds: float, dice: float = 0.5) -> list[LinkEffect]:
        """Let time pass; the alarm rings when it should."""
        until = self.now + seconds
        effects: list[LinkEffect] = []
        while (when := self.link.deadline()) is not None and when <= until:
            self.now = max(self.now, when)
            effects += self.note(self.link.tick(self.now, dice))
        self.now = until
        return effects

    def sleeps(self, seconds: float, dice: float = 0.5) -> list[LinkEffect]:
        """Let time pass without any alarm; then it rings, late."""
        self.now += seconds
        return self.note(self.link.tick(self.now, dice))

    @property
    def state(self) -> State:
        return self.link.state


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def live(client: Client) -> Client:
    client.told(Start(), Authorized(), Opened(), WELCOME)
    assert client.state is State.LIVE
    return client


# ── from nothing to live ──────────────────────────────────────────────────────────────────────────


def test_the_way_to_a_live_link(client: Client) -> None:
    assert client.link.status == Status(State.IDLE)
    assert client.told(Start()) == [Authorize(fresh=False)]
    assert client.told(Authorized()) == [Dial(Road.WEBSOCKET)]
    assert client.told(Opened()) == [Introduce()]
    assert client.told(WELCOME) == [Rejoin()]
    assert client.link.status == Status(State.LIVE)


def test_what_is_not_in_the_table_changes_nothing(live: Client) -> None:
    for input in (Start(), Authorized(), Opened(), WELCOME, Unpaused()):
        assert live.told(input) == []
        assert live.state is State.LIVE


def test_dialing_and_greeting_share_one_deadline(client: Client) -> None:
    assert GREETING_SECONDS == 10.0
    client.told(Start(), Authorized())
    client.waits(6.0)
    client.told(Opened())
    assert client.waits(3.9) == []
    assert client.waits(0.1) == [Abandon(1000)]
    assert client.state is State.WAITING


def test_a_second_start_dials_no_second_time(client: Client) -> None:
    client.told(Start(), Start(), Authorized(), Authorized(), Start())
    assert client.did == [Authorize(fresh=False), Dial(Road.WEBSOCKET)]


# ── the way back ──────────────────────────────────────────────────────────────────────────────────


def test_a_lost_link_waits_and_dials_again(live: Client) -> None:
    live.waits(20.0)
    assert live.told(Lost(1006, "gone")) == []
    assert live.link.status == Status(State.WAITING, 1, 1.0, 1.0, live.now + 1.0, 1006, "gone")
    assert live.waits(0.99) == []
    assert live.waits(0.01) == [Authorize(fresh=False)]
    assert live.told(Authorized()) == [Dial(Road.WEBSOCKET)]
    assert live.link.status == Status(State.DIALING, 1, 1.0, 1.0, None, 1006, "gone")


def test_each_failure_waits_longer(client: Client) -> None:
    delays = []
    client.told(Start())
    for _ in range(8):
        client.told(Authorized(), Lost())
        delays.append(client.link.status.delay)
        client.waits(delays[-1])
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_with_jitter_the_delay_is_drawn_below_the_ceiling() -> None:
    client = Client(jitter=True)
    client.told(Start(), Authorized(), Lost(), dice=0.0)
    assert (client.link.status.ceiling, client.link.status.delay) == (1.0, 0.25)
    client.waits(0.25)
    client.told(Authorized(), Lost(), dice=0.75)
    assert (client.link.status.ceiling, client.link.status.delay) == (2.0, 1.5)


def test_a_welcome_that_lasted_starts_over_and_short_ones_go_on_growing(client: Client) -> None:
    client.told(Start())
    ceilings = []
    for lived in (20, 1, 1, 1, 20, 1, 1):
        client.told(Authorized(), Opened(), WELCOME)
        client.waits(lived)
        client.told(Lost())
        ceilings.append(client.link.status.ceiling)
        client.waits(60)
    assert ceilings == [1, 1, 2, 4, 1, 1, 2]


def test_a_token_that_cannot_be_fetched_is_tried_again_later(client: Client) -> None:
    client.told(Start(), Lost(1006, "no token"))
    assert client.state is State.WAITING
    assert client.waits(1.0) == [Authorize(fresh=False)]


def test_the_servers_advice_is_followed_once(live: Client) -> None:
    live.waits(20)
    assert live.told(Advised(3.0, 4.0)) == []
    live.told(Lost(1012), dice=0.5)
    assert (live.link.status.delay, live.link.status.ceiling) == (5.0, 7.0)
    live.waits(5.0)
    live.told(Authorized(), Lost())
    assert live.link.status.delay == 2.0


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("is_moving", [False, True])
def test_advice_before_the_welcome_is_heeded_as_if_it_had_come_after(*, is_moving: bool, is_lost: bool) -> None:
    clients = Client(), Client()
    for client, told in zip(clients, ((Advised(3.0, 4.0), WELCOME), (WELCOME, Advised(3.0, 4.0))), strict=True):
        client.told(Start(), Authorized(), Opened())
        if is_moving:
            client.told(WELCOME, Moved())
        client.told(*told, dice=0.25)
        client.waits(3.5)
        assert Move() not in client.did
        if is_lost:
            client.told(Lost(1012), dice=0.25)
            assert client.link.status.delay == 4.0
        else:
            assert client.waits(0.5) == [Move()]
    one, other = clients
    assert one.link.status == other.link.status
    assert one.dialed == other.dialed


@pytest.mark.parametrize("after", [Opened(), Moved()])
def test_advice_is_forgotten_with_the_link_that_it_came_on(live: Client, after: LinkInput) -> None:
    live.waits(20)
    live.told(Advised(0.0, 0.0))
    assert live.waits(0.25) == [Move()]
    live.told(Advised(0.0, 0.0))
    if after == Opened():
        live.told(Lost(1012))
        assert live.waits(0.25) == [Authorize(fresh=False)]
        live.told(Authorized())
    live.told(after, WELCOME)
    assert live.waits(10) == []
    live.told(Lost())
    assert live.link.status.delay == 1.0


def test_a_move_is_an_attempt_when_it_is_tried_and_not_when_it_is_planned(client: Client) -> None:
    attempts = []
    client.told(Start())
    for seconds in (0.0, 0.0, 0.0, 8.0, 0.0):
        client.told(Authorized(), Opened(), WELCOME, Advised(0.0, 0.0))
        client.waits(seconds)
        client.told(Lost(1012))
        attempts.append(client.link.status.attempt)
        client.waits(client.link.status.delay)
    assert client.did.count(Move()) == 1
    assert attempts == [1, 2, 3, 5, 6]


def test_a_nudge_ends_the_wait(client: Client) -> None:
    client.told(Start(), Authorized())
    client.waits(5.0)
    client.told(Lost())
    assert client.told(Nudged()) == [Authorize(fresh=False)]


def test_nudges_do_not_make_it_dial_more_often_than_the_floor(client: Client) -> None:
    client.told(Start(), Authorized(), Lost())
    assert client.told(Nudged()) == [Authorize(fresh=False)]
    for _ in range(100):
        assert client.told(Nudged(), Authorized()) == []
    assert client.waits(0.24) == []
    assert client.waits(0.01) == [Dial(Road.WEBSOCKET)]


# ── away for good ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [4000, 4001, 4003, 4009, 4026, 4077])
def test_what_is_about_us_ends_it_for_good(live: Client, code: int) -> None:
    assert live.told(Lost(code, "why")) == []
    assert live.link.status == Status(State.CLOSED, code=code, reason="why")
    assert live.link.deadline() is None
    assert live.told(Nudged(), Unpaused(), Opened(), WELCOME) == []


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3999, 4108, 4129, 4999])
def test_after_everything_else_it_comes_back(live: Client, code: int) -> None:
    live.told(Lost(code))
    assert live.state is State.WAITING


def test_a_closed_link_can_be_started_again(live: Client) -> None:
    live.told(Lost(4001))
    assert live.told(Start()) == [Authorize(fresh=False)]


def test_a_refused_token_is_exchanged_once_where_there_is_a_function_for_it() -> None:
    client = Client(renewable=True)
    client.told(Start(), Authorized(), Opened(), Lost(4001))
    assert client.state is State.WAITING
    assert client.waits(1.0) == [Authorize(fresh=True)]
    client.told(Authorized(), Opened(), Lost(4001))
    assert client.state is State.CLOSED


def test_a_token_that_was_taken_may_be_refused_once_more_later() -> None:
    client = Client(renewable=True)
    client.told(Start(), Authorized(), Opened(), Lost(4001))
    client.waits(1.0)
    client.told(Authorized(), Opened(), WELCOME)
    client.waits(20.0)
    client.told(Lost(4001))
    assert client.state is State.WAITING
    assert client.waits(1.0) == [Authorize(fresh=True)]


def test_only_unauthorized_is_worth_a_fresh_token() -> None:
    client = Client(renewable=True)
    client.told(Start(), Authorized(), Opened(), Lost(4003))
    assert client.state is State.CLOSED


# ── silence ───────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_server_is_probed_and_then_abandoned(live: Client) -> None:
    assert live.waits(39.9) == []
    assert live.waits(0.1) == [Probe()]
    assert live.state is State.PROBING
    assert live.waits(2.9) == []
    assert live.waits(0.1) == [Abandon(1000)]
    assert (live.link.status.state, live.link.status.reason) == (State.WAITING, "the server fell silent")
    assert PROBE_SECONDS == 3.0


def test_whatever_is_heard_puts_the_silence_off(live: Client) -> None:
    for _ in range(20):
        assert live.waits(39.0) == []
        live.told(Heard())
    assert live.waits(39.9) == []
    assert live.waits(0.1) == [Probe()]


def test_an_answered_probe_is_as_if_nothing_had_been(live: Client) -> None:
    live.waits(40.0)
    assert live.told(Heard()) == []
    assert live.state is State.LIVE
    assert live.waits(39.9) == []
    assert live.waits(0.1) == [Probe()]


def test_a_nudge_probes_a_live_link_at_once(live: Client) -> None:
    assert live.told(Nudged()) == [Probe()]
    assert live.waits(3.0) == [Abandon(1000)]


@pytest.mark.parametrize("late", [LATE_SECONDS + 0.1, 100.0, 86_400.0])
def test_an_alarm_that_comes_late_probes_and_never_judges(live: Client, late: float) -> None:
    live.waits(39.9)
    assert live.sleeps(0.1 + late) == [Probe()]
    assert live.sleeps(PROBE_SECONDS + late) == [Probe()]  # asleep again: that said nothing about the server
    assert live.state is State.PROBING
    assert live.waits(3.0) == [Abandon(1000)]


def test_an_alarm_that_comes_a_little_late_judges(live: Client) -> None:
    live.waits(40.0)
    assert live.sleeps(PROBE_SECONDS + 0.9) == [Abandon(1000)]


def test_an_alarm_that_comes_early_does_nothing(live: Client) -> None:
    assert live.link.tick(live.now + 39.9, 0.5) == []
    assert Link().tick(1e9, 0.5) == []


# ── put away ──────────────────────────────────────────────────────────────────────────────────────


def test_a_page_that_is_put_away_lets_go_and_comes_back(live: Client) -> None:
    assert live.told(Paused()) == [Abandon(1001)]
    assert (live.state, live.link.deadline()) == (State.PAUSED, None)
    assert live.told(Lost(), Nudged(), Heard()) == []
    assert live.told(Unpaused()) == [Authorize(fresh=False)]


def test_stopping_lets_go_for_good(live: Client) -> None:
    assert live.told(Stop()) == [Abandon(1000)]
    assert live.link.status == Status(State.CLOSED)
    assert live.told(Stop()) == []


@pytest.mark.parametrize("before", [(), (Start(),), (Start(), Authorized(), Lost())])
def test_stopping_without_a_socket_abandons_none(client: Client, before: tuple[LinkInput, ...]) -> None:
    client.told(*before)
    assert client.told(Stop()) == []
    assert client.state is State.CLOSED


# ── the table ─────────────────────────────────────────────────────────────────────────────────────


def test_from_everywhere_one_can_get_everywhere_and_stop() -> None:
    for state in State:
        assert (state is State.CLOSED) == ((state, Stop) not in LIFE)
    reached = {State.IDLE}
    for _ in State:
        reached |= {after for (before, _), after in LIFE.items() if before in reached}
    assert reached == set(State)


happenings = st.one_of(
    st.sampled_from(
        [
            Start(), Authorized(), Opened(), WELCOME, Heard(), Nudged(), Paused(), Unpaused(), Stop(), Advised(1, 2),
            Advised(0, 0), Moved(),
        ]
    ),
    st.builds(Lost, st.sampled_from([1000, 1006, 4001, 4003, 4108, 4999])),
    st.floats(0, 100),
    st.floats(0, 0.5),
)  # fmt: skip


def sockets(did: Iterable[LinkEffect]) -> int:
    """Return how many sockets were opened, and not let go of by us."""
    return sum(isinstance(effect, Dial) for effect in did) - sum(isinstance(effect, Abandon) for effect in did)


@given(st.lists(happenings, max_size=60), st.booleans())
def test_whatever_happens_there_is_never_a_second_socket_and_always_a_way_on(
    happenings: list[LinkInput | float], renewable: bool
) -> None:
    client = Client(renewable=renewable)
    opened = 0
    for what in happenings:
        lost_one = isinstance(what, Lost) and client.state in (
            State.DIALING,
            State.GREETING,
            State.LIVE,
            State.PROBING,
            State.MOVING,
        )
        if isinstance(what, float):
            client.waits(what)
        else:
            client.told(what)
        opened += lost_one
        assert sockets(client.did) - opened in (0, 1)
        has_socket = sockets(client.did) - opened == 1
        assert has_socket == (client.state in (State.DIALING, State.GREETING, State.LIVE, State.PROBING, State.MOVING))
        if client.state is not State.AUTHORIZING:  # it waits for a token, or for the floor
            assert (client.link.deadline() is None) == (client.state in (State.IDLE, State.PAUSED, State.CLOSED))
        status = client.link.status
        assert (status.retry_at is not None) == (status.state is State.WAITING)
    assert all(after - before > FLOOR - 1e-9 for before, after in pairwise(client.dialed))
