"""The dead are noticed within interval plus timeout, and nobody is cut for the server's slowness or the link's."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.heartbeat import (
    CADENCE,
    LATENESS,
    Connection,
    Dead,
    Ended,
    Heartbeat,
    HeartbeatEffect,
    Look,
    Opened,
    Ping,
    Pinged,
    Seen,
)

INTERVAL, TIMEOUT = 30.0, 10.0
GRAIN = 0.1
#: A ping may be a grain late, and so may the look that follows it.
SLACK = 2 * GRAIN + 1e-6

Answer = Callable[[float], "float | None"]


def at_once(pinged: float) -> float:
    return pinged + 0.05


def never(pinged: float) -> None:
    return None


class Sea:
    """Carries out a heartbeat over simulated sockets, and notes what happens when."""

    def __init__(self, interval: float = INTERVAL, timeout: float = TIMEOUT) -> None:
        self.beat = Heartbeat(interval, timeout)
        self.now = 0.0
        self.ticks: list[float] = []
        self.pings: dict[Connection, list[float]] = defaultdict(list)
        self.looks: Counter[Connection] = Counter()
        self.dead: dict[Connection, float] = {}
        self.lateness = 0.0
        self.read_until: float | None = None  # the server has read nothing that came later
        self._answers: dict[Connection, Answer] = {}
        self._bytes: dict[Connection, list[float]] = {}
        self._link: dict[Connection, Callable[[float], int]] = {}
        self._marks: dict[Connection, int] = {}

    def open(self, connection: Connection, answer: Answer = never, phase: float = 1.0) -> None:
        """A peer that sends one byte at `answer(time of the ping)`."""
        self._answers[connection] = answer
        self._bytes[connection] = []
        self.beat.receive(Opened(connection, phase), self.now)

    def sends(self, connection: Connection, *times: float) -> None:
        self._bytes[connection] = sorted([*self._bytes[connection], *times])

    def suspend(self, seconds: float) -> None:
        """Nobody does anything for so long, neither the server nor its peers."""
        for connection, times in self._bytes.items():
            self._bytes[connection] = [time if time <= self.now else time + seconds for time in times]
        self.now += seconds

    def has_backlog(self, connection: Connection, mark: int, acknowledged: Callable[[float], int]) -> None:
        """Its pings are written behind a backlog and end at byte `mark`; the peer acknowledges as it can."""
        self._marks[connection] = mark
        self._link[connection] = acknowledged

    def run(self, until: float) -> None:
        """Let time pass; the timer rings `lateness` after it should."""
        while (when := self.beat.deadline()) is not None and max(when, self.now) + self.lateness <= until:
            self.now = max(when, self.now) + self.lateness
            self.tick()
        self.now = until

    def tick(self) -> None:
        self.ticks.append(self.now)
        self._carry(self.beat.tick(self.now))

    def _carry(self, effects: list[HeartbeatEffect]) -> None:
        for effect in effects:
            connection = effect.connection
            match effect:
                case Ping():
                    self.pings[connection].append(self.now)
                    answer = self._answers[connection](self.now)
                    if answer is not None:
                        self.sends(connection, answer)
                    if connection in self._marks:
                        acknowledged = self._link[connection](self.now)
                        self.beat.receive(Pinged(connection, self._marks[connection], acknowledged), self.now)
                case Look():
                    self.looks[connection] += 1
                    self._carry(self.beat.receive(self._seen(connection), self.now))
                case Dead():
                    assert connection not in self.dead
                    self.dead[connection] = self.now

    def _seen(self, connection: Connection) -> Seen:
        times = self._bytes[connection]
        arrived = bisect_right(times, self.now)
        read = arrived if self.read_until is None else bisect_right(times, self.read_until)
        acknowledged = self._link[connection](self.now) if connection in self._link else None
        return Seen(connection, times[read - 1] if read else None, arrived > read, acknowledged)


# ── the dead ──────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_peer_is_gone_after_interval_plus_timeout() -> None:
    sea = Sea()
    sea.open("mute", never, phase=1.0)
    sea.run(100)
    assert sea.pings["mute"] == [30.0]
    assert 40.0 <= sea.dead["mute"] <= 40.0 + SLACK


def test_a_dead_peer_is_forgotten() -> None:
    sea = Sea()
    sea.open("mute")
    sea.run(100)
    assert sea.beat.deadline() is None
    assert sea.beat.receive(Seen("mute", None), 100.0) == []
    sea.run(1000)
    assert len(sea.pings["mute"]) == 1


def test_a_peer_that_fell_silent_right_after_a_pong_is_gone_one_interval_and_timeout_later() -> None:
    sea = Sea()
    sea.open("peer", lambda pinged: at_once(pinged) if pinged < 100 else None)
    sea.run(300)
    last_byte = 90.05
    assert sea.pings["peer"] == pytest.approx([30, 60, 90, 120])
    assert sea.dead["peer"] <= last_byte + INTERVAL + TIMEOUT
    assert sea.dead["peer"] == pytest.approx(130, abs=SLACK)


def test_bytes_from_before_the_ping_are_no_answer_to_it() -> None:
    sea = Sea()
    sea.open("peer")
    sea.sends("peer", 1.0, 29.999)
    sea.run(100)
    assert sea.dead["peer"] == pytest.approx(40, abs=SLACK)


def test_a_connection_that_ended_is_neither_pinged_nor_looked_at() -> None:
    sea = Sea()
    sea.open("early")
    sea.open("late")
    sea.run(5.0)
    sea.beat.receive(Ended("early"), sea.now)
    sea.run(35.0)
    sea.beat.receive(Ended("late"), sea.now)
    assert sea.beat.receive(Seen("late", None), sea.now) == []
    assert sea.beat.receive(Pinged("late", 100, 0), sea.now) == []
    assert sea.beat.receive(Ended("late"), sea.now) == []
    sea.run(200)
    assert dict(sea.pings) == {"late": [30.0]}
    assert sea.dead == {}
    assert not sea.looks


# ── the living ────────────────────────────────────────────────────────────────────────────────────


def test_a_peer_that_answers_is_pinged_every_interval_for_ever() -> None:
    sea = Sea()
    sea.open("peer", at_once)
    sea.run(3015)
    assert sea.dead == {}
    assert sea.pings["peer"] == pytest.approx([30.0 * number for number in range(1, 101)], abs=100 * SLACK)
    assert len(sea.pings["peer"]) == 100
    assert sea.looks["peer"] == 100  # once for each: who has answered is not looked at again


@pytest.mark.parametrize("moment", [0.0, 5.0, 10.0])
def test_any_byte_within_the_timeout_spares_a_peer(moment: float) -> None:
    sea = Sea()
    sea.open("peer", lambda pinged: pinged + moment)
    sea.run(300)
    assert sea.dead == {}


def test_a_byte_after_the_timeout_is_too_late() -> None:
    sea = Sea()
    sea.open("peer", lambda pinged: pinged + TIMEOUT + SLACK)
    sea.run(300)
    assert sea.dead["peer"] == pytest.approx(40, abs=SLACK)


def test_a_busy_peer_is_pinged_like_an_idle_one() -> None:
    sea = Sea()
    sea.open("busy")
    sea.sends("busy", *(0.5 * number for number in range(400)))
    sea.run(199)
    assert sea.dead == {}
    assert len(sea.pings["busy"]) == 6


def test_with_unread_input_the_verdict_waits_until_it_is_read() -> None:
    sea = Sea()
    sea.open("peer", at_once)
    sea.read_until = 0.0
    sea.run(70)
    assert sea.dead == {}
    sea.read_until = None
    sea.run(75)
    assert sea.dead == {}
    assert sea.pings["peer"] == pytest.approx([30, 70], abs=SLACK)


def test_unread_input_from_before_the_ping_saves_nobody_once_it_is_read() -> None:
    sea = Sea()
    sea.open("peer")
    sea.sends("peer", 29.0)
    sea.read_until = 0.0
    sea.run(70)
    assert sea.dead == {}
    sea.read_until = None
    sea.run(75)
    assert sea.dead["peer"] == pytest.approx(70, abs=SLACK)


answers = st.one_of(
    st.floats(0.0, TIMEOUT),  # within the timeout
    st.sampled_from([0.0, TIMEOUT]),
)


@given(
    phases=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5),
    delays=st.lists(answers, min_size=1, max_size=20),
    lateness=st.floats(0, 0.9 * LATENESS),
)
def test_a_peer_that_sends_a_byte_within_the_timeout_of_each_ping_never_dies(
    phases: list[float], delays: list[float], lateness: float
) -> None:
    sea = Sea()
    sea.lateness = lateness
    for number, phase in enumerate(phases):
        sea.open(number, lambda pinged: pinged + delays[int(pinged) % len(delays)], phase)
    sea.run(2000)
    assert sea.dead == {}
    for number in range(len(phases)):
        assert len(sea.pings[number]) >= 2000 // (INTERVAL + 1)


@given(
    interval=st.floats(0.5, 60),
    share=st.floats(0.05, 1.0),
    phases=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=5),
    bytes=st.lists(st.floats(0, 200), max_size=40),
    silent_from=st.floats(0, 200),
)
def test_a_peer_that_falls_silent_dies_within_the_bound_and_never_before_the_timeout(
    interval: float, share: float, phases: list[float], bytes: list[float], silent_from: float
) -> None:
    timeout = interval * share
    sea = Sea(interval, timeout)
    for number, phase in enumerate(phases):
        sea.open(number, lambda pinged: pinged + timeout / 2 if pinged < silent_from else None, phase)
        sea.sends(number, *(moment for moment in bytes if moment < silent_from))
    slack = 2 * min(GRAIN, interval / 20, timeout / 20) + 1e-6
    sea.run(silent_from + timeout / 2 + interval + timeout + slack)
    for number in range(len(phases)):
        last_byte = max((moment for moment in sea._bytes[number] if moment <= sea.dead[number]), default=0.0)
        last_ping = sea.pings[number][-1]
        assert last_ping + timeout - 1e-6 <= sea.dead[number] <= last_byte + interval + timeout + slack
        assert last_byte < last_ping


# ── a slow link ───────────────────────────────────────────────────────────────────────────────────


def test_while_a_backlog_is_being_acknowledged_the_ping_is_on_its_way() -> None:
    sea = Sea()
    sea.open("slow", never)
    sea.has_backlog("slow", 1_000_000, lambda now: int(100 * now))
    sea.run(2000)
    assert sea.dead == {}
    assert sea.pings["slow"] == [30.0]


def test_when_the_backlog_gets_no_further_the_time_runs_from_the_last_progress() -> None:
    sea = Sea()
    sea.open("stuck", never)
    sea.has_backlog("stuck", 1_000_000, lambda now: int(100 * min(now, 47.0)))
    sea.run(200)
    assert sea.dead["stuck"] == pytest.approx(57, abs=SLACK)


def test_a_peer_that_acknowledges_nothing_gets_no_more_time_than_one_without_a_backlog() -> None:
    sea = Sea()
    sea.open("gone", never)
    sea.has_backlog("gone", 1_000_000, lambda now: 500)
    sea.run(200)
    assert sea.dead["gone"] == pytest.approx(40, abs=SLACK)


def test_when_the_ping_has_arrived_the_peer_has_the_whole_timeout_to_answer_it() -> None:
    sea = Sea()
    for name, answers in (("quick", 54.0), ("mute", None)):
        sea.open(name, never)
        sea.has_backlog(name, 4500, lambda now: min(4600, int(100 * now)))  # the ping is there at 45
        if answers is not None:
            sea.sends(name, answers)
    sea.run(62)
    assert sea.dead == {"mute": pytest.approx(55, abs=SLACK)}


def test_a_kernel_that_acknowledges_does_not_keep_a_stopped_process_alive() -> None:
    sea = Sea()
    sea.open("stopped", never)
    sea.has_backlog("stopped", 1000, lambda now: 1000 if now > 30.05 else 900)
    sea.run(200)
    assert sea.dead["stopped"] == pytest.approx(40, abs=0.05 + SLACK)


def test_where_nothing_is_known_of_acknowledgements_the_timeout_runs_from_the_ping() -> None:
    beat = Heartbeat(INTERVAL, TIMEOUT)
    beat.receive(Opened("peer", 1.0), 0.0)
    assert beat.tick(30.0) == [Ping("peer")]
    beat.receive(Pinged("peer", 100, 50), 30.0)
    assert beat.tick(30.2) == [Look("peer", 30.0)]
    assert beat.receive(Seen("peer", None, acknowledged=None), 30.2) == []
    assert beat.tick(40.0) == [Look("peer", 30.0)]
    assert beat.receive(Seen("peer", None, acknowledged=None), 40.0) == [Dead("peer")]


def test_a_new_ping_forgets_the_backlog_of_the_one_before() -> None:
    sea = Sea()
    sea.open("peer", lambda pinged: at_once(pinged) if pinged < 40 else None)
    sea.has_backlog("peer", 1000, lambda now: 900)
    sea.run(40)
    del sea._marks["peer"]  # from now on nothing is before its pings
    sea._link["peer"] = lambda now: 1000 + int(now)  # … and that what was before has arrived says nothing
    sea.run(100)
    assert sea.dead["peer"] == pytest.approx(70, abs=SLACK)


# ── a server that stands still ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("starts", [29.9, 30.03, 35.0, 39.99])
@pytest.mark.parametrize("reads_first", [True, False])
def test_a_server_that_stood_still_kills_nobody(starts: float, reads_first: bool) -> None:
    sea = Sea()
    for number in range(100):
        sea.open(number, lambda pinged: pinged + 9.0, phase=(number + 1) / 100)
    sea.run(starts)
    sea.now = starts + 2 * (INTERVAL + TIMEOUT)
    sea.read_until = None if reads_first else starts
    sea.tick()
    sea.read_until = None
    sea.run(sea.now + 200)
    assert sea.dead == {}


def test_where_unread_input_cannot_be_seen_what_is_read_before_the_tick_counts() -> None:
    beat = Heartbeat(INTERVAL, TIMEOUT)
    beat.receive(Opened("peer", 1.0), 0.0)
    assert next_effects(beat) == ([Ping("peer")], 30.0)
    assert beat.deadline() == 30.0 + CADENCE
    assert beat.tick(120.0) == []  # 89 s that do not count
    assert next_effects(beat) == ([Look("peer", 30.0)], pytest.approx(129.0, abs=SLACK))
    assert beat.receive(Seen("peer", 120.0), 129.0) == []
    assert next_effects(beat) == ([Ping("peer")], pytest.approx(149.0, abs=SLACK))


def next_effects(beat: Heartbeat) -> tuple[list[HeartbeatEffect], float]:
    """Tick in time until there is something to do; return it, and when that was."""
    while True:
        now = beat.deadline()
        assert now is not None
        effects = beat.tick(now)
        if effects:
            return effects, now


def test_after_a_standstill_a_dead_peer_is_still_found_by_as_much_later() -> None:
    sea = Sea()
    sea.open("mute", never)
    sea.run(35.0)
    sea.now = 135.0
    sea.tick()
    sea.run(300)
    assert 140.0 - CADENCE <= sea.dead["mute"] <= 140.0 + SLACK
    sea.open("later", never)
    opened = sea.now
    sea.run(opened + 100)
    assert sea.dead["later"] == pytest.approx(opened + 40, abs=SLACK)


def test_a_tick_that_is_ordinarily_late_shifts_nothing() -> None:
    sea = Sea()
    sea.lateness = 0.9 * LATENESS
    sea.open("mute", never)
    sea.run(100)
    assert 40.0 <= sea.dead["mute"] <= 40.0 + SLACK + 3 * LATENESS


@given(
    stalls=st.lists(st.tuples(st.floats(0, 100), st.floats(0.06, 200)), min_size=1, max_size=6),
    phases=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=4),
    delay=st.floats(0.0, 9.5),
)
def test_standstills_of_any_length_at_any_time_kill_nobody_who_answers(
    stalls: list[tuple[float, float]], phases: list[float], delay: float
) -> None:
    sea = Sea()
    for number, phase in enumerate(phases):
        sea.open(number, lambda pinged: pinged + delay, phase)
    for after, length in stalls:
        sea.run(sea.now + after)
        sea.read_until = sea.now
        sea.now += length
        sea.run(sea.now)  # whatever came due meanwhile comes first; then what has arrived is read
        sea.read_until = None
    sea.run(sea.now + 100)
    assert sea.dead == {}


@given(
    stalls=st.lists(st.tuples(st.floats(45, 100), st.floats(0.2, 200)), min_size=1, max_size=6),
    phases=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=4),
    delay=st.floats(0.0, TIMEOUT - CADENCE - 3 * LATENESS),
)
def test_a_machine_that_was_suspended_with_its_peers_gives_them_the_time_that_they_had(
    stalls: list[tuple[float, float]], phases: list[float], delay: float
) -> None:
    sea = Sea()
    for number, phase in enumerate(phases):
        sea.open(number, lambda pinged: pinged + delay, phase)
    for after, length in stalls:
        sea.run(sea.now + after)
        sea.suspend(length)
    sea.run(sea.now + 100)
    assert sea.dead == {}


# ── ten thousand ──────────────────────────────────────────────────────────────────────────────────


def test_ten_thousand_connections_do_not_mean_as_many_timers() -> None:
    sea = Sea()
    for number in range(10_000):
        sea.open(number, at_once, phase=(number + 1) / 10_000)
    sea.run(65)
    apart = [after - before for before, after in zip(sea.ticks, sea.ticks[1:], strict=False)]
    assert min(apart) >= GRAIN - 1e-6
    assert {len(times) for times in sea.pings.values()} == {2, 3}
    assert sea.dead == {}


def test_the_pings_are_spread_over_the_interval() -> None:
    sea = Sea()
    for number in range(3000):
        sea.open(number, at_once, phase=(number + 1) / 3000)
    sea.run(90.2)
    by_second = Counter(int(moment) for times in sea.pings.values() for moment in times)
    assert max(by_second[second] for second in range(90)) <= 120
    assert sum(by_second.values()) == pytest.approx(9000, abs=120)


def test_short_intervals_have_shorter_grains() -> None:
    sea = Sea(interval=0.4, timeout=0.2)
    sea.open("mute", never)
    sea.run(5)
    assert 0.6 <= sea.dead["mute"] <= 0.6 + 2 * 0.01 + 1e-6


def test_whoever_was_pinged_late_together_is_not_so_for_good() -> None:
    beat = Heartbeat(30.0, 10.0)
    beat.receive(Opened("ann", 0.500), 0.0)
    beat.receive(Opened("bob", 0.506), 0.0)
    assert beat.tick(15.3) == [Ping("ann"), Ping("bob")]
    for peer in ("ann", "bob"):
        beat.receive(Seen(peer, 15.4), 16.0)
    assert beat.tick(45.0) == [Ping("ann")]
    assert beat.tick(45.2) == [Ping("bob")]


def test_many_are_pinged_at_few_times_of_their_own() -> None:
    beat = Heartbeat(30.0, 10.0)
    for number in range(1, 10_001):
        beat.receive(Opened(number, number / 10_000), 0.0)
    assert len(beat._agenda._pages) == 300


def test_pings_that_were_missed_are_not_made_up_for() -> None:
    """On a slow link a ping may take longer to arrive than it is to the next one."""
    beat = Heartbeat(30.0, 10.0)
    beat.receive(Opened("ann", 1.0), 0.0)
    assert beat.tick(30.0) == [Ping("ann")]
    beat.receive(Pinged("ann", 1_000, 0), 30.0)
    for now in range(31, 200):
        beat.tick(float(now))
        beat.receive(Seen("ann", None, acknowledged=now), float(now))
    beat.receive(Seen("ann", 200.0), 200.0)
    assert beat.tick(200.1) == [Ping("ann")]
    beat.tick(210.2)
    beat.receive(Seen("ann", 200.2), 210.2)
    assert beat.tick(210.3) == [Ping("ann")]  # it is its time again
    beat.tick(220.4)
    beat.receive(Seen("ann", 210.4), 220.4)
    assert beat.tick(239.9) == []
    assert beat.tick(240.0) == [Ping("ann")]
