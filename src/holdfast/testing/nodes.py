"""
What is there beside, where several servers share a database?

The database, the way to it from each server, and what is seen of the servers: that one which is cut
off serves nobody, that the people of one which was killed are shown no longer than promised, and
that nobody is told that they went on elsewhere who did not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.store.postgres_feed import AWAY_SECONDS, LATE_SECONDS
from holdfast.store.store import Retention
from holdfast.testing.cable import Delays, InDatabase, Shore, Way
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.server_process import TABLE, ServerProcess
from holdfast.testing.shared_log import Copy
from holdfast.testing.watch import Watch

if TYPE_CHECKING:
    from holdfast import Hub
    from holdfast.testing.world import World

#: Where a proxy listens that has all servers behind it.
PROXY = ("sea", 80)
#: The people of a server that was killed are shown no longer than this, and as long as a question takes. Seconds.
LEASE = 15.0 + 1.0
#: One that is cut off serves nobody after this. Seconds.
AWAY = AWAY_SECONDS + LATE_SECONDS + 1.0


class Nodes:
    """Servers that share a database."""

    def __init__(self, world: World, count: int, retention: Retention) -> None:
        dice = world.dice
        delays = Delays(
            dice.choice([(0.0003, 0.003), (0.0003, 0.003), (0.005, 0.06)]),
            dice.choice([0.0, 0.0, 0.2, 1.0]),
            dice.choice([0.0, 0.1]),
            (0.0005, dice.choice([0.005, 0.5])),
        )
        self._world = world
        self.shore = Shore(world.loop, dice, delays)
        self.shore.log.conflicts = dice.choice([0.0, 0.02])
        self.ways = [Way(self.shore) for _ in range(count)]
        self._kept = [InDatabase(way, retention, [TABLE]) for way in self.ways]
        self.servers = [
            ServerProcess(world.loop, (f"server-{number}", 80), kept, world._opened)
            for number, kept in enumerate(self._kept, 1)
        ]
        world.network.behind[PROXY] = [server.address for server in self.servers]
        self.copy: Copy | None = None
        self.doubtful_until = 0.0  # the database was not to be reached by all, or did not know who is where

    def choose_url(self) -> str:
        """Return where somebody dials: most the proxy, some a server."""
        address = self._world.dice.choice([PROXY, PROXY, PROXY, *(server.address for server in self.servers)])
        return f"ws://{address[0]}:{address[1]}/ws"

    def way(self, server: ServerProcess) -> Way:
        """Return the way from a server to the database."""
        return self.ways[self.servers.index(server)]

    def doubt(self, seconds: float) -> None:
        """For so long, and a while longer, servers cannot know who is where."""
        self.doubtful_until = max(self.doubtful_until, self._world.loop.time() + seconds + LEASE)
        self._world.stood_still = max(self._world.stood_still, self._world.loop.time() + seconds + LEASE)

    def calm_down(self) -> None:
        """Let nothing go wrong any more."""
        self.shore.is_silent = False
        self.shore.delays = Delays()
        self.shore.log.conflicts = 0.0
        for way in self.ways:
            way.is_silent = way.is_closed = way.hears_nothing = False
            way.loses = None

    def bury(self) -> None:
        """Take apart the threads of all processes."""
        self._world.report.reached["hint lost"] += self.shore.calls_lost
        self._world.report.reached["answer lost"] += sum(way.lost for way in self.ways)

    # What is seen.

    def watch(self, hub: Hub) -> None:
        """Look over the shoulder of a server, in all lives of its log."""
        store: Any = hub.opened.store
        lives: Any = hub._lives
        reached = self._world.report.reached
        taken, away, back, moved = lives.taken, lives.away, lives.back, lives.moved

        def was_taken(session: str, rooms: tuple[str, ...]) -> None:
            reached["taken over"] += 1
            taken(session, rooms)

        def is_away() -> None:
            reached["cut off"] += 1
            away()

        def is_back() -> None:
            reached["back again"] += 1
            back()

        def has_moved() -> None:
            reached["begun anew"] += 1
            moved()
            Watch(self._world, hub)

        lives.taken, lives.away, lives.back, lives.moved = was_taken, is_away, is_back, has_moved
        feed = store._feed
        take_hint, catch_up = feed._take_hint, feed._catch_up
        hinted = False

        def hint(rooms: list[str]) -> None:
            nonlocal hinted
            hinted = True
            take_hint(rooms)

        async def catching_up(connection: Any, behind: dict[str, tuple[int, int]]) -> None:
            nonlocal hinted
            reached["poll found it"] += bool(behind) and not hinted
            hinted = False
            await catch_up(connection, behind)

        feed._take_hint, feed._catch_up = hint, catching_up
        store._hints.hinted["news"] = hint

    def expect_serves_nobody(self, server: ServerProcess) -> None:
        """See, when it is time, that a server that is cut off from now on serves nobody."""
        way, process, hub, since = self.way(server), server.process, server.hub, self._world.loop.time()

        def look() -> None:
            if process is None or server.process is not process or hub not in self._world.verdict.hubs():
                return
            if process.was_stopped or not way.is_cut:
                return
            if self._world.loop.time() < since + AWAY:
                self._world.later(0.1, look)
                return
            assert hub is not None
            hands = hub.opened.hands
            if hands.departure.reason is None or hands.connections:
                self._world.verdict.wrong(
                    f"{server.address[0]} is cut off since {since:.3f}, and serves {len(hands.connections)} clients"
                )

        look()

    def kill(self, server: ServerProcess, felt: Felt = unfelt) -> None:
        """End a server, and see, when it is time, that who was there, and is nowhere else, is shown no more."""
        hub = server.hub
        server.kill(felt)
        if hub is None or hub._lives is None:
            return
        world, died = self._world, self._world.loop.time()
        users = {session.user.user_id for session in hub.opened.hands.mind.sessions()}

        def look() -> None:
            if self.doubtful_until > died or world.stood_still > died:
                return
            minds = [hub.opened.hands.mind for hub in world.verdict.hubs()]
            users.difference_update(session.user.user_id for mind in minds for session in mind.sessions())
            if world.loop.time() < died + LEASE:
                world.later(0.1, look)
                return
            for user in sorted(users):
                for room in world.rooms:
                    if world.verdict.shows(room, user):
                        world.verdict.wrong(f"{server.address[0]} is gone since {died:.1f}, and its people are shown")
            world.report.reached["no ghosts"] += 1

        look()
