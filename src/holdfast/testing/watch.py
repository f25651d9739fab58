"""
Does a server keep its promises to those whose links are good?

It looks over a server's shoulder, and sees what no client is told: whom the heartbeat takes for
dead, who is shown no longer, and how much waits for somebody who reads slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.core import heartbeat
from holdfast.core.inputs import Ending, Full, Identified, Input, Lost, Page, Taken, Went
from holdfast.core.ready import CHUNK_BYTES
from holdfast.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from holdfast import Hub
    from holdfast.testing.world import World

#: Who breaks off is shown for as long as this, and a little longer. Seconds.
GRACE = 5.0 - 0.1
#: Who is pinged has so long to send a byte. Seconds.
TIMEOUT = 10.0 - 1e-6
#: What may wait for one connection: a full transport, one write more, and some small answers. Bytes.
WAITING = 2 * CHUNK_BYTES + 8 * 1024


class Watch:
    """What is seen of one server; everything that is done goes through its hands."""

    def __init__(self, world: World, hub: Hub) -> None:
        self._world = world
        self._hub = hub
        self._hands = hub.opened.hands
        self._left = world.left
        self._taken: dict[str, float] = {}  # when a session of a user went on at another server
        self._reached = world.report.reached
        self._pinged: dict[Any, float] = {}  # when a connection was, last
        self._behind: dict[Any, None] = {}  # connections that were set back, since their transport was full
        self._stalled = 0.0
        self._tell, self._lost, self._beat_once = self._hands.tell, self._hands.lost, self._hands._beat_once
        self._receive = self._hands.mind.receive
        self._hands.tell = self.tell  # type: ignore[method-assign]
        self._hands.lost = self.lost  # type: ignore[method-assign]
        self._hands._beat_once = self.beat_once  # type: ignore[method-assign]
        self._hands.mind.receive = self.receive  # type: ignore[method-assign]

    def lost(self, connection: Any, ending: Ending) -> None:
        """Take in that a connection is gone."""
        if connection in self._hands.connections:
            end: Endpoint = connection._transport
            client = end.peer.process
            is_good = not end.wire.was_silent and client is not None and client.is_alive and not client.was_stopped
            if ending is Ending.DEAD and is_good:
                self._wrong("a client was taken for dead whose link is good")
            if ending is Ending.DEAD and self._world.loop.time() < self._pinged[connection] + TIMEOUT:
                self._wrong(f"a client was taken for dead, and was pinged at {self._pinged[connection]:.3f}")
            self._pinged.pop(connection, None)
            self._behind.pop(connection, None)
            if end.most > WAITING:
                self._wrong(f"{end.most} bytes have waited for a connection")
            self._world.report.reached["transport full"] += end.most > CHUNK_BYTES
        self._lost(connection, ending)

    def beat_once(self, effect: Any, connection: Any) -> None:
        """Take in what the heartbeat does."""
        if isinstance(effect, heartbeat.Ping):
            self._pinged[connection] = self._world.loop.time()
        if self._hands._beat._stalled > self._stalled:
            self._stalled = self._hands._beat._stalled
            self._reached["stall"] += 1
        self._beat_once(effect, connection)

    def receive(self, input: Input, now: float) -> Any:
        """Take in what the mind makes of it: which roads are taken, where they are."""
        mind = self._hands.mind
        twin = mind._by_id.get(input.replaces) if isinstance(input, Identified) and input.replaces else None
        effects = self._receive(input, now)
        match input:
            case Identified(connection) if twin is not None and twin.connection is not connection:
                self._reached["twin closed"] += mind._by_id.get(twin.id) is not twin
            case Page(_, _, items):
                self._reached["read from the log"] += bool(items)
            case Full(connection) if (session := mind.session(connection)) is not None and session.rooms:
                self._reached["set back"] += connection not in self._behind
                self._behind[connection] = None
        for connection in tuple(self._behind):
            session = mind.session(connection)
            if session is not None and session.rooms and all(member.live for member in session.rooms.values()):
                self._reached["caught up"] += 1
                del self._behind[connection]
        return effects

    def tell(self, input: Input) -> None:
        """Take in what the mind is told: nobody leaves a room by breaking off, or by coming back."""
        mind = self._hands.mind
        match input:
            case Lost(connection, Ending.UNCLEAN):
                session = mind.session(connection)
            case Identified(replaces=str(replaced)):
                session = mind._by_id.get(replaced)
            case Lost(connection) | Went(connection):
                session, gone = None, mind.session(connection)
                if gone is not None:
                    self._left[gone.user.user_id] = self._world.loop.time()
            case Taken(id):  # from now on it is for the other server to show them
                session, taken = None, mind._by_id.get(id) or mind._absence.session(id)
                if taken is not None:
                    self._taken[taken.user.user_id] = self._world.loop.time()
            case _:
                session = None
        user, rooms = ("", ()) if session is None else (session.user.user_id, tuple(session.rooms))
        self._tell(input)
        if rooms:
            self._look(user, rooms)
        if rooms and isinstance(input, Lost):
            now = self._world.loop.time()
            self._world.later(GRACE, lambda: self._look(user, rooms, now))

    def _look(self, user: str, rooms: tuple[str, ...], since: float | None = None) -> None:
        """See that somebody is still shown, who has not left meanwhile."""
        if all(self._hub is not server.hub for server in self._world.servers) or self._hands.departure.is_final:
            return
        if self._hub.opened.hands is not self._hands:
            return  # the log has begun anew, and everybody with it
        if since is not None and max(self._left.get(user, -1.0), self._taken.get(user, -1.0)) >= since:
            return
        for room in rooms:
            if self._world.nodes is not None and self._hands.mind.room(room) is None:
                continue  # they went on at another server, and nobody is in that room here
            if user not in {one.user_id for one in self._hub.members(room)}:
                self._wrong(f"a user has broken off, or come back, and is shown in {room} no longer, within the grace")

    def _wrong(self, what: str) -> None:
        self._world.verdict.wrong(what)
