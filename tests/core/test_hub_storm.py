"""Whatever happens, in whatever order: nobody has a hole or a repeat, presence is true, and nothing is left behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.small_world import EPOCH, Peer, World, tight_limits
from holdfast.core.inputs import Ending
from holdfast.protocol.cursor import Position

ROOMS = ("lobby", "kitchen", "attic")
USERS = ("ann", "bob", "cy")
ENDINGS = (Ending.UNCLEAN, Ending.UNCLEAN, Ending.CLEAN, Ending.DEAD)


@pytest.fixture(autouse=True, scope="module")
def _tight_limits() -> Iterator[None]:
    with tight_limits():
        yield


class Storm:
    """What can happen, each named; three small numbers choose to whom and how much."""

    def __init__(self) -> None:
        self.world = World(high=400, low=100)
        self.listened: Counter[str] = Counter()
        self.sessions: list[str] = ["nobody's"]

    def peer(self, number: int) -> Peer | None:
        return self.world.peers[number % len(self.world.peers)] if self.world.peers else None

    def known(self, number: int) -> Peer | None:
        """Return somebody who has said who they are, and does not wait for an answer."""
        peers = [peer for peer in self.world.peers if peer.session]
        peer = peers[number % len(peers)] if peers else None
        return None if peer in [asking.peer for asking in self.world.asking] else peer

    def since(self, peer: Peer, room: str, number: int) -> Position | None:
        """Return a position that a client may come with: honest, old, newer than the news, forged, foreign."""
        assert peer.user is not None
        log = self.world.log(room)
        remembered = self.world.last_seen.get((peer.user.user_id, room), 0)
        if room in peer.rooms:
            remembered = peer.rooms[room].position
        offset = (remembered, remembered, log.head, number % (log.head + 1), log.floor - 1, log.head + 1 + number)
        if number % 11 == 10:
            return Position("0ther", number)
        return Position(EPOCH, offset[number % len(offset)])

    # Connections.

    def arrives(self, a: int, b: int, c: int) -> None:
        if len(self.world.peers) < 8:
            self.sessions.append(self.world.arrive(USERS[a % 3]).session)

    def opens(self, a: int, b: int, c: int) -> None:
        if len(self.world.peers) < 8:
            self.world.open()

    def returns(self, a: int, b: int, c: int) -> None:
        """Somebody comes back, and claims one of the latest sessions."""
        if len(self.world.peers) < 8:
            claimed = self.sessions[-1 - b % min(4, len(self.sessions))]
            user = self.world.owners.get(claimed, USERS[a % 3]) if c % 5 else USERS[a % 3]
            self.sessions.append(self.world.arrive(user, replaces=claimed).session)

    def signs_in(self, a: int, b: int, c: int) -> None:
        """Somebody says again, or at last, who they are."""
        peer = self.peer(a)
        if peer is not None and peer not in [asking.peer for asking in self.world.asking]:
            self.world.identify(peer, USERS[b % 3], replaces=self.sessions[-1] if c % 3 == 0 else None)
            self.sessions.append(peer.session)

    def is_lost(self, a: int, b: int, c: int) -> None:
        peer = self.peer(a)
        if peer is not None:
            self.world.lose(peer, ENDINGS[b % 4])

    def expels(self, a: int, b: int, c: int) -> None:
        self.world.expel(USERS[a % 3], ROOMS[b % 3] if c % 4 else None)

    # What they say.

    def joins(self, a: int, b: int, c: int) -> None:
        peer = self.known(a)
        if peer is not None:
            room = ROOMS[b % 3]
            self.world.begin(peer, room, self.since(peer, room, c) if c % 4 else None, sync=False)

    def syncs(self, a: int, b: int, c: int) -> None:
        peer = self.known(a)
        if peer is not None and peer.rooms:
            room = sorted(peer.rooms)[b % len(peer.rooms)]
            self.world.begin(peer, room, self.since(peer, room, c), sync=True)

    def leaves(self, a: int, b: int, c: int) -> None:
        peer = self.known(a)
        if peer is not None:
            self.world.leave(peer, ROOMS[b % 3])

    def types(self, a: int, b: int, c: int) -> None:
        peer = self.known(a)
        if peer is not None:
            self.world.type(peer, ROOMS[b % 3], active=bool(c % 3))

    # The store.

    def commits(self, a: int, b: int, c: int) -> None:
        self.world.commit(ROOMS[a % 3], 1 + b % 4, (0, 5, 40, 120, 350)[c % 5])

    def tells(self, a: int, b: int, c: int) -> None:
        self.world.tell_news(1 + a % 6, repeat=b % 3)

    def loses_news(self, a: int, b: int, c: int) -> None:
        if a % 3 == 0:
            self.world.lose_news()

    def trims(self, a: int, b: int, c: int) -> None:
        self.world.trim(ROOMS[a % 3], None if b % 5 == 0 else c % 8)

    def looks_up(self, a: int, b: int, c: int) -> None:
        if self.world.asking:
            self.world.look_up(self.world.asking[a % len(self.world.asking)])

    def answers(self, a: int, b: int, c: int) -> None:
        self.world.finish_asking()

    def reads(self, a: int, b: int, c: int) -> None:
        if self.world.reading:
            self.world.read(self.world.reading[a % len(self.world.reading)])

    def brings_page(self, a: int, b: int, c: int) -> None:
        if self.world.reading:
            self.world.answer(self.world.reading[a % len(self.world.reading)])

    # Transports, and the rest.

    def fills(self, a: int, b: int, c: int) -> None:
        peer = self.peer(a)
        if peer is not None:
            self.world.fill(peer, 50 * (1 + b % 10))

    def drains(self, a: int, b: int, c: int) -> None:
        peer = self.peer(a)
        if peer is not None:
            self.world.drain(peer, None if b % 3 == 0 else 100 * (c % 5))

    def announces(self, a: int, b: int, c: int) -> None:
        peer = self.peer(b)
        self.world.announce(ROOMS[a % 3], None if peer is None else peer.session)

    def listens(self, a: int, b: int, c: int) -> None:
        self.world.listen(ROOMS[a % 3])
        self.listened[ROOMS[a % 3]] += 1

    def stops_listening(self, a: int, b: int, c: int) -> None:
        if self.listened[ROOMS[a % 3]]:
            self.listened[ROOMS[a % 3]] -= 1
            self.world.unlisten(ROOMS[a % 3])

    def time_passes(self, a: int, b: int, c: int) -> None:
        self.world.pass_time((0.01, 0.1, 0.5, 1.0, 3.0, 6.0)[a % 6])

    # And then?

    def happens(self, what: Callable[[Storm, int, int, int], None], a: int, b: int, c: int) -> None:
        what(self, a, b, c)
        self.world.check_presence()

    def ends(self) -> None:
        self.world.check_rest()
        for room, count in self.listened.items():
            for _ in range(count):
                self.world.unlisten(room)
        self.world.check_end()


HAPPENINGS: dict[Callable[[Storm, int, int, int], None], int] = {
    Storm.arrives: 4, Storm.opens: 1, Storm.returns: 5, Storm.signs_in: 1, Storm.is_lost: 4, Storm.expels: 1,
    Storm.joins: 12, Storm.syncs: 4, Storm.leaves: 2, Storm.types: 2,
    Storm.commits: 12, Storm.tells: 10, Storm.loses_news: 1, Storm.trims: 2,
    Storm.looks_up: 2, Storm.answers: 7, Storm.reads: 3, Storm.brings_page: 7,
    Storm.fills: 3, Storm.drains: 9, Storm.announces: 1, Storm.listens: 1, Storm.stops_listening: 1,
    Storm.time_passes: 5,
}  # fmt: skip

#: Every branch of the mind that is worth a storm; a run that misses one proves nothing about it.
MUST_HAPPEN = {
    "joined fresh", "joined resumed", "joined trimmed", "joined epoch", "joined ahead",
    "resync trimmed", "resync epoch", "resync ahead",
    "synced", "page", "full", "drained", "early", "takeover", "busy presence",
}  # fmt: skip


def weather(seed: int, steps: int) -> Storm:
    """Return a storm of its own for each seed, after it: in each, some things happen often and some not at all."""
    dice = random.Random(seed)
    storm = Storm()
    weights = [weight * dice.choice((0, 1, 1, 1, 5)) for weight in HAPPENINGS.values()]
    for what in dice.choices(list(HAPPENINGS), [1 + weights[0], *weights[1:]], k=steps):
        storm.happens(what, dice.randrange(1000), dice.randrange(1000), dice.randrange(1000))
    storm.ends()
    return storm


def test_two_hundred_storms_break_no_promise_and_miss_no_branch() -> None:
    seen: Counter[str] = Counter()
    for seed in range(200):
        seen += weather(seed, 300).world.seen
    assert set(seen) == MUST_HAPPEN
    assert min(seen.values()) >= 20, seen


small = st.integers(0, 30)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(list(HAPPENINGS)), small, small, small), max_size=60))
def test_no_story_however_made_up_breaks_a_promise(
    steps: list[tuple[Callable[[Storm, int, int, int], None], int, int, int]],
) -> None:
    storm = Storm()
    for step in steps:
        storm.happens(*step)
    storm.ends()
