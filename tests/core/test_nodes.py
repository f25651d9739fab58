"""
Several nodes, and people who go from one to the other: they all come to know the same of who is here.

Each node is the real mind; between them is a table of who is where, as the store keeps it, which every node
reads late. Nobody is seen to leave and come who has only changed the node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.core import inputs
from holdfast.core.effects import Attends, Close, Deliver, Departs, Effect, Types
from holdfast.core.hub import Hub, Rules
from holdfast.core.inputs import Ending
from holdfast.core.ready import Span
from holdfast.protocol.codec import Codec
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.messages import HeartbeatTerms, Terms, User

RULES = Rules(HeartbeatTerms(30.0, 10.0), Terms(65536, 50.0, 100), "room", 5.0, 10.0, shared=True)
ANN, BOB, CY = (User(name.lower(), name) for name in ("Ann", "Bob", "Cy"))
ROOMS = ("lobby", "kitchen")

Key = tuple[str, str]  # room, session


class Row(NamedTuple):
    node: str
    here: bool
    user: User
    claim: int


@dataclass
class Table:
    """Who is where, as all nodes write it. Changes have numbers, and so have claims: the newest holds a session."""

    now: float = 0.0
    sessions: int = 0
    claims: int = 0
    rows: dict[Key, Row] = field(default_factory=dict)
    log: list[Key] = field(default_factory=list)

    def put(self, key: Key, row: Row) -> None:
        if key not in self.rows or self.rows[key].claim <= row.claim:
            self.rows[key] = row
            self.log.append(key)


class Node:
    """One node, as its hands and its store make it; when it is `late`, it writes only when it is to look, or has to."""

    def __init__(self, name: str, table: Table, *, late: bool = False) -> None:
        self.name = name
        self.late = late
        self.table = table
        self.mind = Hub(Codec(), "k3f9", RULES)
        self.read = len(table.log)
        self.connections: dict[str, str] = {}  # and their sessions
        self.mine: dict[Key, User] = {}
        self.unwritten: dict[Key, User | None] = {}  # of mine; None: has left
        self.claims: dict[str, int] = {}  # to sessions
        self.theirs: dict[str, dict[str, User]] = {}
        self.departed: list[Key] = []
        self.said: dict[str, list[dict[str, Any]]] = {}
        self.closed: dict[str, int] = {}

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(to, frames):
                    for frame in frames:
                        for connection in to:
                            self.said.setdefault(str(connection), []).append(json.loads(frame.text))
                case Attends(room, session, user):
                    self.mine[room, session] = self.unwritten[room, session] = user
                case Departs(room, session):
                    if self.mine.pop((room, session), None) is not None:
                        self.unwritten[room, session] = None
                    else:
                        self.departed.append((room, session))
                case Close(connection, code, _):
                    self.closed[str(connection)] = code
                    self.connections.pop(str(connection), None)
                case Types():
                    pass
        if not self.late:
            self.write()

    def tell(self, input: inputs.Input) -> None:
        self.do(self.mind.receive(input, self.table.now))

    def tick(self) -> None:
        while (due := self.mind.deadline()) is not None and due <= self.table.now:
            self.do(self.mind.tick(self.table.now))

    def arrive(self, connection: str, user: User, replaces: str | None = None, link: int | None = None) -> str:
        """Let somebody in, who may bring a session."""
        self.table.sessions += 1
        rooms = () if replaces is None else self.claim(replaces, user, link)
        replaces, rooms = (None, ()) if rooms is None else (replaces, rooms)
        self.tell(inputs.Opened(connection))
        if replaces is not None and rooms:
            self.tell(inputs.Awaited(replaces, user, rooms))
        self.tell(inputs.Identified(connection, f"s{self.table.sessions}", user, replaces=replaces, link=link))
        self.connections[connection] = next(
            said["session"] for said in reversed(self.said[connection]) if said["type"] == "connected"
        )
        return self.connections[connection]

    def claim(self, session: str, user: User, link: int | None = None) -> tuple[str, ...] | None:
        self.write()
        self.table.claims += 1
        claim = self.table.claims if link is None else link
        places = {key: row for key, row in self.table.rows.items() if key[1] == session and row.user == user}
        if any(row.claim > claim for row in places.values()):
            return None
        self.claims[session] = claim
        rooms = []
        for key, row in places.items():
            if row.here:
                self.table.put(key, Row(self.name, True, user, claim))
            if row.here and row.node != self.name:
                rooms.append(key[0])
                self.mine[key] = user
                self.theirs.get(key[0], {}).pop(session, None)
        return tuple(rooms)

    def write(self) -> None:
        for (room, session), user in self.unwritten.items():
            row = self.table.rows.get((room, session))
            if user is not None:
                self.table.put((room, session), Row(self.name, True, user, self.claims.get(session, 0)))
            elif row is not None and row.node == self.name:
                self.table.put((room, session), row._replace(here=False))
            if user is None:
                self.departed.append((room, session))
        self.unwritten.clear()

    def join(self, connection: str, room: str) -> None:
        if self.mind.room(room) is None:
            self.theirs[room] = {
                session: user
                for (name, session), (at, here, user, _) in self.table.rows.items()
                if name == room and here and at != self.name
            }
        self.tell(inputs.Entered(connection, room, span=Span(1, 0), elsewhere=tuple(self.theirs[room].items())))

    def lose(self, connection: str, ending: Ending) -> None:
        del self.connections[connection]
        self.tell(inputs.Lost(connection, ending))

    def catch_up(self) -> None:
        """Write down who came and went, and read what all have written since it read last."""
        self.write()
        keys, self.read = dict.fromkeys(self.table.log[self.read :]), len(self.table.log)
        taken: dict[str, list[str]] = {}
        for room, session in keys:
            row = self.table.rows[room, session]
            if row.node != self.name and self.mine.pop((room, session), None) is not None:
                taken.setdefault(session, []).append(room)
                if room in self.theirs:
                    self.theirs[room][session] = row.user
        for session, rooms in taken.items():
            self.tell(inputs.Taken(session, tuple(rooms)))
        for room, session in keys:
            at, here, user, _ = self.table.rows[room, session]
            theirs = self.theirs.get(room)
            if theirs is None or self.mind.room(room) is None:
                continue
            if here and at != self.name:
                theirs[session] = user
                self.tell(inputs.Met(room, came=((session, user),)))
            elif theirs.pop(session, None) is not None and not here:
                self.tell(inputs.Met(room, went=((session, user),)))
        departed, self.departed = self.departed, []
        for room, session in departed:
            self.tell(inputs.Departed(room, session))

    def roster(self, room: str) -> set[str] | None:
        known = self.mind.room(room)
        return None if known is None else {user.user_id for user in known.attendance.roster.users()}

    def heard(self, connection: str, *types: str) -> list[dict[str, Any]]:
        said, self.said[connection] = self.said.get(connection, []), []
        return [message for message in said if message["type"] in types]


@pytest.fixture
def nodes() -> tuple[Node, Node]:
    table = Table()
    return Node("one", table), Node("two", table)


PRESENCE = ("user_joined", "user_left", "presence")


def test_people_of_all_nodes_are_in_a_room(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.arrive("a", ANN)
    one.join("a", "lobby")
    two.arrive("b", BOB)
    two.join("b", "lobby")
    joined = two.heard("b", "joined")[0]
    assert [user["userId"] for user in joined["users"]] == ["ann", "bob"]
    one.heard("a")
    one.catch_up()
    assert [message["type"] for message in one.heard("a", *PRESENCE)] == ["user_joined", "presence"]
    two.lose("b", Ending.CLEAN)
    one.catch_up()
    assert [message["type"] for message in one.heard("a", *PRESENCE)] == ["user_left", "presence"]


def test_a_person_with_tabs_on_two_nodes_is_one_entry(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    one.arrive("a1", ANN)
    one.join("a1", "lobby")
    one.heard("b")
    two.arrive("a2", ANN)
    two.join("a2", "lobby")
    one.catch_up()
    assert one.heard("b", *PRESENCE) == []
    one.lose("a1", Ending.CLEAN)
    assert one.heard("b", *PRESENCE) == []
    two.lose("a2", Ending.CLEAN)
    one.catch_up()
    assert [message["type"] for message in one.heard("b", *PRESENCE)] == ["user_left", "presence"]


@pytest.mark.parametrize("is_lost", [True, False])
@pytest.mark.parametrize("is_late", [True, False])
def test_who_returns_to_another_node_is_not_seen_to_leave_and_the_twin_is_cut(
    nodes: tuple[Node, Node], is_lost: bool, is_late: bool
) -> None:
    one, two = nodes
    for node, name in ((one, "b"), (two, "c")):
        node.arrive(name, BOB)
        node.join(name, "lobby")
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    for node in nodes:
        node.catch_up()
    one.heard("b"), two.heard("c")
    if is_lost:
        one.lose("a", Ending.UNCLEAN)
    assert two.arrive("a'", ANN, session) == session
    if not is_late:
        one.catch_up()
    two.join("a'", "lobby")
    for _ in range(3):
        one.table.now += 3.0
        for node in nodes:
            node.catch_up()
            node.tick()
    assert one.heard("b", *PRESENCE) == two.heard("c", *PRESENCE) == []
    assert one.closed == ({} if is_lost else {"a": CloseCode.TAKEN_OVER})
    assert one.roster("lobby") == two.roster("lobby") == {"ann", "bob"}


def test_who_goes_away_while_their_session_is_taken_over_is_awaited(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    for node, name in ((one, "b"), (two, "c")):
        node.arrive(name, BOB)
        node.join(name, "lobby")
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    two.catch_up()
    one.heard("b"), two.heard("c")
    one.lose("a", Ending.UNCLEAN)
    two.tell(inputs.Awaited(session, ANN, two.claim(session, ANN)))
    one.catch_up()
    assert one.heard("b", *PRESENCE) == two.heard("c", *PRESENCE) == []
    one.table.now += 5.0
    for node in (two, one):
        node.tick()
        node.catch_up()
    for node, name in ((one, "b"), (two, "c")):
        assert [message["type"] for message in node.heard(name, *PRESENCE)] == ["user_left", "presence"]
        assert node.roster("lobby") == {"bob"}
    assert two.mind.deadline() is None


def test_who_went_on_elsewhere_is_not_seen_to_leave_by_a_node_that_hears_of_it_after_the_grace(
    nodes: tuple[Node, Node],
) -> None:
    one, two = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    one.heard("b")
    one.lose("a", Ending.UNCLEAN)
    two.arrive("a'", ANN, session)
    two.join("a'", "lobby")
    one.table.now += 6.0
    one.tick()
    one.catch_up()
    assert one.heard("b", *PRESENCE) == []
    assert one.roster("lobby") == {"ann", "bob"}
    two.lose("a'", Ending.CLEAN)
    one.catch_up()
    assert [message["type"] for message in one.heard("b", *PRESENCE)] == ["user_left", "presence"]


def test_a_link_that_ends_when_its_session_has_gone_on_elsewhere_is_not_seen_to_leave(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    one.heard("b")
    assert two.arrive("a'", ANN, session) == session
    one.lose("a", Ending.CLEAN)
    two.join("a'", "lobby")
    for node in (one, two, one):
        node.catch_up()
    assert one.heard("b", *PRESENCE) == []
    two.lose("a'", Ending.CLEAN)
    two.catch_up()
    one.catch_up()
    assert [message["type"] for message in one.heard("b", *PRESENCE)] == ["user_left", "presence"]


@pytest.mark.parametrize("joins", [True, False])
def test_who_is_awaited_is_in_a_room_that_is_opened_meanwhile(nodes: tuple[Node, Node], joins: bool) -> None:
    one, two = nodes
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    assert two.arrive("a'", ANN, session) == session
    assert two.mind.people("lobby") == (ANN,)
    two.arrive("b", BOB)
    two.join("b", "lobby")
    assert {user["userId"] for user in two.heard("b", "joined")[0]["users"]} == {"ann", "bob"}
    if joins:
        two.join("a'", "lobby")
    two.table.now += 5.0
    two.tick()
    two.catch_up()
    left = [] if joins else ["user_left", "presence"]
    assert [message["type"] for message in two.heard("b", *PRESENCE)] == left
    assert two.mind.deadline() is None


def test_who_is_awaited_in_a_room_that_nobody_opens_is_forgotten_in_the_end(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    assert two.arrive("a'", ANN, session) == session
    two.table.now += 5.0
    two.tick()
    two.catch_up()
    assert two.mind.people("lobby") == ()
    two.arrive("b", BOB)
    two.join("b", "lobby")
    assert [user["userId"] for user in two.heard("b", "joined")[0]["users"]] == ["bob"]


def test_who_was_seen_to_leave_and_is_awaited_is_back(nodes: tuple[Node, Node]) -> None:
    """Everybody else hears of it: the session is written down again."""
    one, two = nodes
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    two.arrive("b", BOB)
    two.join("b", "lobby")
    two.heard("b")
    two.tell(inputs.Met("lobby", went=((session, ANN),)))  # its node seems to be dead
    assert [message["type"] for message in two.heard("b", *PRESENCE)] == ["user_left", "presence"]
    two.arrive("a'", ANN, session)
    assert [message["type"] for message in two.heard("b", *PRESENCE)] == ["user_joined", "presence"]
    two.join("a'", "lobby")
    assert two.heard("b", *PRESENCE) == []


def test_who_is_awaited_while_their_departure_is_written_down_stays(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    two.arrive("b", BOB)
    two.join("b", "lobby")
    session = two.arrive("a", ANN)
    two.join("a", "lobby")
    two.heard("b")
    two.late = True
    two.lose("a", Ending.CLEAN)
    one.claim(session, ANN)
    assert two.arrive("a'", ANN, session) == session
    two.catch_up()
    assert two.heard("b", *PRESENCE) == []
    assert two.roster("lobby") == {"ann", "bob"}


def test_who_was_back_and_has_left_is_shown_where_they_go_next(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    session = one.arrive("a", ANN)
    for room in ROOMS:
        one.join("a", room)
    one.lose("a", Ending.UNCLEAN)
    assert one.arrive("a'", ANN, session) == session
    for room in ROOMS:
        one.join("a'", room)
    one.tell(inputs.Went("a'", "lobby"))
    one.catch_up()
    assert two.arrive("a''", ANN, session) == session
    two.join("a''", "lobby")
    one.catch_up()
    assert one.roster("lobby") == {"ann", "bob"}


@pytest.mark.parametrize("room", ["lobby", None])
def test_who_is_put_out_while_they_are_awaited_is_shown_no_more(nodes: tuple[Node, Node], room: str | None) -> None:
    one, two = nodes
    for node, name in ((one, "b"), (two, "c")):
        node.arrive(name, BOB)
        node.join(name, "kitchen")
    session = one.arrive("a", ANN)
    for name in ROOMS:
        one.join("a", name)
    two.catch_up()
    assert two.arrive("a'", ANN, session) == session  # and joins neither
    one.catch_up()
    for node in nodes:
        node.tell(inputs.Expelled("ann", room))
    for node in (two, one):
        node.catch_up()
    assert two.mind.people("lobby") == ()
    assert one.roster("kitchen") == two.roster("kitchen") == ({"bob"} if room is None else {"ann", "bob"})
    assert {key[0] for key, row in one.table.rows.items() if row.here and row.user == ANN} == (
        set() if room is None else {"kitchen"}
    )
    two.table.now += 5.0
    two.tick()
    assert two.mind.deadline() is None


def test_who_is_here_and_in_another_room_elsewhere_is_in_both(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    one.arrive("b", BOB)
    one.join("b", "kitchen")
    one.tell(inputs.Met("kitchen", came=((session, ANN),)))
    assert one.roster("kitchen") == {"ann", "bob"}


def test_who_took_a_session_over_and_does_not_join_has_left_after_the_grace(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    two.arrive("a'", ANN, session)
    one.catch_up()
    assert one.roster("lobby") == {"ann", "bob"}
    one.table.now += 5.0
    two.tick()
    one.catch_up()
    assert one.roster("lobby") == {"bob"}
    assert two.mind.deadline() is None


def test_who_is_back_before_the_node_knew_that_they_were_elsewhere_stays(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    one.lose("a", Ending.UNCLEAN)
    assert two.arrive("a'", ANN, session) == session
    for room in ROOMS:
        two.join("a'", room)
    assert one.arrive("a''", ANN, session) == session
    one.join("a''", "lobby")
    for _ in range(3):
        for node in nodes:
            node.table.now += 3.0
            node.catch_up()
            node.tick()
    assert (one.closed, two.closed) == ({}, {"a'": CloseCode.TAKEN_OVER})
    assert one.roster("lobby") == {"ann"}
    assert [key for key, row in one.table.rows.items() if row.here] == [("lobby", session)]


def test_what_an_older_link_said_and_is_heard_late_takes_no_session_from_a_newer_one(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    two.arrive("b", BOB)
    two.join("b", "lobby")
    session = one.arrive("a", ANN, link=1)
    one.join("a", "lobby")
    two.catch_up()
    assert two.arrive("a'", ANN, session, link=3) == session
    two.join("a'", "lobby")
    two.heard("b")
    assert one.arrive("late", ANN, session, link=2) != session
    for _ in range(3):
        for node in nodes:
            node.table.now += 3.0
            node.catch_up()
            node.tick()
    assert two.closed == {}
    assert two.heard("b", *PRESENCE) == []
    assert one.closed == {"a": CloseCode.TAKEN_OVER}


def test_nobody_takes_over_the_session_of_somebody_else(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    session = one.arrive("a", ANN)
    one.join("a", "lobby")
    assert two.arrive("b", BOB, session) != session
    one.catch_up()
    assert one.closed == {}


def test_who_types_elsewhere_is_seen_and_lapses(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    one.tell(inputs.TypedElsewhere("lobby", "s9", ANN, active=True))
    assert one.heard("b", "user_typing")[0]["userId"] == "ann"
    one.table.now += 5.0
    one.tick()
    assert one.heard("b", "user_stopped_typing")[0]["userId"] == "ann"
    one.tell(inputs.TypedElsewhere("lobby", "s9", ANN, active=True))
    one.tell(inputs.TypedElsewhere("lobby", "s9", ANN, active=False))
    assert [said["type"] for said in one.heard("b", "user_typing", "user_stopped_typing")] == [
        "user_typing", "user_stopped_typing",
    ]  # fmt: skip
    one.tell(inputs.TypedElsewhere("attic", "s9", ANN, active=True))


def test_who_types_elsewhere_and_leaves_is_not_remembered(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    one.tell(inputs.Met("lobby", came=(("s8", ANN),)))
    one.tell(inputs.TypedElsewhere("lobby", "s8", ANN, active=True))
    one.tell(inputs.Met("lobby", went=(("s8", ANN),)))
    one.tell(inputs.TypedElsewhere("lobby", "s9", CY, active=True))
    one.table.now += 5.0
    one.tick()
    lobby = one.mind.room("lobby")
    assert lobby is not None
    assert lobby.attendance._starts == {}


def test_who_types_elsewhere_in_a_room_that_is_closed_here_meanwhile_is_forgotten(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    one.tell(inputs.TypedElsewhere("lobby", "s9", ANN, active=True))  # they are not known to be there
    one.lose("b", Ending.CLEAN)
    one.catch_up()
    assert one.mind.deadline() is None


def test_who_has_left_types_no_more(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    one.arrive("b", BOB)
    one.join("b", "lobby")
    one.tell(inputs.Met("lobby", came=(("s8", ANN),)))
    one.tell(inputs.TypedElsewhere("lobby", "s9", ANN, active=True))
    one.tell(inputs.Met("lobby", went=(("s8", ANN),)))
    assert one.heard("b", "user_stopped_typing", "user_left")[0]["type"] == "user_stopped_typing"
    assert one.mind.deadline() is None


def test_alone_nobody_is_told_anything() -> None:
    mind = Hub(Codec(), "k3f9", Rules(HeartbeatTerms(30.0, 10.0), Terms(65536, 50.0, 100), "room", 5.0, 10.0))
    effects: list[Effect] = []
    for input in (
        inputs.Opened("a"),
        inputs.Identified("a", "s1", ANN),
        inputs.Entered("a", "lobby", span=Span(1, 0)),
        inputs.Typed("a", "lobby", active=True),
        inputs.Lost("a", Ending.CLEAN),
    ):
        effects += mind.receive(input, 0.0)
    assert not [effect for effect in effects if isinstance(effect, Attends | Departs | Types)]


class Wandering(RuleBasedStateMachine):
    """People come, go, wander between three nodes, break off and return; each node reads when it likes."""

    @initialize(counts=st.booleans())
    def begin(self, *, counts: bool) -> None:
        self.counts = counts  # whether clients number their links
        self.table = Table()
        self.nodes = [Node(name, self.table, late=True) for name in ("one", "two", "three")]
        self.links = 0
        self.old: list[tuple[str, User]] = []  # sessions that there were
        self.newest: dict[str, str] = {}  # their newest links

    @invariant()
    def nobody_is_cut_for_an_older_link(self) -> None:
        for node in self.nodes:
            assert not set(node.closed) & set(self.newest.values())

    def link(self, data: st.DataObject) -> tuple[Node, str]:
        return data.draw(st.sampled_from([(node, name) for node in self.nodes for name in node.connections]))

    @rule(data=st.data(), user=st.sampled_from([ANN, BOB, CY]))
    def arrive(self, data: st.DataObject, user: User) -> None:
        self.links += 1
        node = data.draw(st.sampled_from(self.nodes))
        mine = [session for session, whose in self.old if whose == user]
        brought = data.draw(st.sampled_from([None, *mine]))
        session = node.arrive(f"link {self.links}", user, brought, self.links if self.counts else None)
        self.old.append((session, user))
        self.newest[session] = f"link {self.links}"

    @precondition(lambda self: any(node.connections for node in self.nodes))
    @rule(data=st.data(), room=st.sampled_from(ROOMS))
    def join(self, data: st.DataObject, room: str) -> None:
        node, name = self.link(data)
        node.join(name, room)

    @precondition(lambda self: any(node.connections for node in self.nodes))
    @rule(data=st.data(), room=st.sampled_from(ROOMS))
    def leave(self, data: st.DataObject, room: str) -> None:
        node, name = self.link(data)
        node.tell(inputs.Went(name, room))

    @precondition(lambda self: any(node.connections for node in self.nodes))
    @rule(data=st.data(), ending=st.sampled_from([Ending.CLEAN, Ending.UNCLEAN, Ending.DEAD]))
    def lose(self, data: st.DataObject, ending: Ending) -> None:
        node, name = self.link(data)
        node.lose(name, ending)

    @precondition(lambda self: any(node.connections for node in self.nodes))
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """A link breaks off, and its client is back at once, wherever."""
        node, name = self.link(data)
        session = node.mind.session(name)
        assert session is not None
        rooms = tuple(session.rooms)
        if data.draw(st.booleans()):
            node.lose(name, Ending.UNCLEAN)
        node = data.draw(st.sampled_from(self.nodes))
        self.links += 1
        link = self.links if self.counts else None
        self.newest[node.arrive(f"link {self.links}", session.user, session.id, link)] = f"link {self.links}"
        for room in rooms:
            node.join(f"link {self.links}", room)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.nodes)).catch_up()

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.table.now += seconds
        for node in self.nodes:
            node.tick()

    def teardown(self) -> None:
        """In the end all agree, and are right."""
        for _ in range(4):
            self.table.now += 6.0
            for node in self.nodes:
                node.catch_up()
                node.tick()
        for room in ROOMS:
            truth = set()
            for node in self.nodes:
                for name in node.connections:
                    session = node.mind.session(name)
                    if session is not None and room in session.rooms:
                        truth.add(session.user.user_id)
            table = {row.user.user_id for (name, _), row in self.table.rows.items() if name == room and row.here}
            assert table == truth, room
            for node in self.nodes:
                assert node.roster(room) in (None, truth), (node.name, room)
        for node in self.nodes:
            assert node.mind.deadline() is None


Wandering.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_wanderers_are_known_to_all = Wandering.TestCase
