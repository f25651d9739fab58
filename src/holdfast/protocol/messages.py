"""
What may be said? One frozen value per message, both directions.

On the wire each is one flat JSON object whose `type` says what it is (PROTOCOL.md).
The field `room` travels under the name that the Hub was given (`room`, `boardId` …).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from holdfast.errors import LONGEST_SECONDS

# What a server says of times, rates and secrets is kept to by its clients, so it has bounds: what is beyond them is
# not in the protocol.

#: Seconds. A heartbeat that is faster is a flood.
SHORTEST_SECONDS = 0.01
#: Messages in a second. Whoever may say less might as well say nothing.
SLOWEST_RATE = 0.01
#: What can stand in a header (RFC 9110 §5.5), and finds room in it.
IN_A_HEADER = r"\A[ -~]{1,4096}\Z"
#: What every server takes back as a session.
SESSION = r"\A[!-~]{1,64}\Z"

#: What the room's field may be called: nothing that stands beside it in some message.
_BESIDE_ROOM = (
    "code|count|cursor|error|id|joined|key|lastEventId|left|link|name|reason|recovered|ref|roomSize|session|since|"
    "token|type|userId|users"
)
ROOM_KEY = rf"\A(?!({_BESIDE_ROOM})\Z)[A-Za-z0-9_-]{{1,64}}\Z"

Beat = Annotated[float, Meta(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS)]
Absence = Annotated[int, Meta(ge=0, le=round(1000 * LONGEST_SECONDS))]
RoomKey = Annotated[str, Meta(pattern=ROOM_KEY)]


class User(Struct, frozen=True, rename="camel"):
    """Who somebody is, as everybody may see it."""

    user_id: str
    name: str


# ── from client to server ─────────────────────────────────────────────────────────────────────────


class Auth(Struct, frozen=True, tag="auth"):
    """Say who you are; with `session`, that you are the one who held it, and with `link`, on which link of yours."""

    token: str | None = None
    session: str | None = None
    link: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class Join(Struct, frozen=True, tag="join"):
    """Enter a room; with `since`, and first tell me what follows this cursor."""

    room: str
    since: str | None = None


class Leave(Struct, frozen=True, tag="leave"):
    """Go out of a room."""

    room: str


class Sync(Struct, frozen=True, tag="sync"):
    """Send me again what follows `since`, or tell me to start afresh."""

    room: str
    since: str


class Ping(Struct, frozen=True, tag="ping"):
    """Are you there? (from a client)"""


class Pong(Struct, frozen=True, tag="pong"):
    """I am. (either direction)"""


class Message(Struct, frozen=True):
    """Anything else: a message of the application, handed to `@hub.on(type)`."""

    type: str
    room: str | None
    data: dict[str, Any]
    ref: str | int | None = None
    key: str | None = None


ClientMessage = Auth | Join | Leave | Sync | Ping | Pong | Message

# ── from server to client ─────────────────────────────────────────────────────────────────────────


class HeartbeatTerms(Struct, frozen=True):
    """How often the server pings, and how long it waits, in seconds."""

    interval: Beat
    timeout: Beat


class Terms(Struct, frozen=True, rename="camel"):
    """The limits that a client can run into."""

    message_bytes: int
    messages_per_second: Annotated[float, Meta(ge=SLOWEST_RATE)]
    rooms: int


class Connected(Struct, frozen=True, kw_only=True, tag="connected", rename="camel"):
    """You are known: the first word on every connection, and the answer to `auth`. By HTTP there is no session."""

    session: Annotated[str, Meta(pattern=SESSION)] | UnsetType = UNSET
    user: User
    heartbeat: HeartbeatTerms
    limits: Terms
    room_key: RoomKey
    token: Annotated[str, Meta(pattern=IN_A_HEADER)] | UnsetType = UNSET


class Joined(Struct, frozen=True, tag="joined", rename="camel"):
    """You are in; where you stand, and who is here (at most 100 of them)."""

    room: str
    cursor: str
    recovered: bool
    users: tuple[User, ...]
    room_size: int
    reason: str | UnsetType = UNSET


class Left(Struct, frozen=True, tag="left"):
    """You are out; `reason` says why, if you have not asked to leave."""

    room: str
    reason: str | UnsetType = UNSET


class Synced(Struct, frozen=True, tag="synced"):
    """The answer to `sync` is complete: `count` publications, and you stand at `cursor`."""

    room: str
    cursor: str
    count: int


class Resync(Struct, frozen=True, tag="resync"):
    """What you have cannot be continued, for this reason: take a snapshot."""

    room: str
    reason: str
    cursor: str


class Presence(Struct, frozen=True, tag="presence", rename="camel"):
    """Who is here now, all of them."""

    room: str
    users: tuple[User, ...]
    room_size: int


class PresenceChanges(Struct, frozen=True, tag="presence", rename="camel"):
    """Who came and who went within a busy second."""

    room: str
    joined: tuple[User, ...]
    left: tuple[User, ...]
    room_size: int


class UserJoined(Struct, frozen=True, tag="user_joined", rename="camel"):
    """A person came (with their first tab)."""

    room: str
    user_id: str
    name: str
    room_size: int


class UserLeft(Struct, frozen=True, tag="user_left", rename="camel"):
    """A person went (with their last tab)."""

    room: str
    user_id: str
    name: str
    room_size: int


class UserTyping(Struct, frozen=True, tag="user_typing", rename="camel"):
    """A person is typing."""

    room: str
    user_id: str
    name: str


class UserStoppedTyping(Struct, frozen=True, tag="user_stopped_typing", rename="camel"):
    """A person is no longer typing: they said so, fell silent, or died."""

    room: str
    user_id: str
    name: str


class Problem(Struct, frozen=True):
    """What was wrong, in words (`error`) and for programs (`code`)."""

    error: str
    code: str


class Reply(Struct, frozen=True, tag="reply", omit_defaults=True):
    """The answer to a message that carried `ref`."""

    ref: str | int
    ok: bool = field()
    data: Any = UNSET
    error: Problem | UnsetType = UNSET


class ServerPing(Struct, frozen=True, tag="ping", omit_defaults=True):
    """
    Are you there? (from the server, at every heartbeat)

    It is `quiet` beside a ping of the WebSocket, which is answered without it: it shows a script that the server is
    there, and wants no answer.
    """

    quiet: bool = False


class Goodbye(Struct, frozen=True, tag="goodbye"):
    """Come back after `after_ms` + U(0, `spread_ms`) milliseconds."""

    reason: str
    after_ms: Absence
    spread_ms: Absence


class Error(Struct, frozen=True, tag="error"):
    """What you sent was not taken; the connection stays, unless a limit was broken."""

    error: str
    code: str
    room: str | UnsetType = UNSET
    ref: str | int | UnsetType = UNSET


ServerMessage = (
    Connected | Joined | Left | Synced | Resync | Presence | PresenceChanges | UserJoined | UserLeft
    | UserTyping | UserStoppedTyping | ServerPing | Pong | Reply | Goodbye | Error
)  # fmt: skip


class Event(Struct, frozen=True):
    """Something happened in a room. `id` is its cursor if it was published, and None if it was only broadcast."""

    room: str
    type: str
    data: dict[str, Any]
    id: str | None = None


#: What a client hears of a room that it is in.
RoomMessage = (
    Joined | Left | Synced | Resync | Presence | PresenceChanges | UserJoined | UserLeft | UserTyping
    | UserStoppedTyping | Event
)  # fmt: skip

#: Types that an application may not publish or broadcast: the protocol's own words.
RESERVED_TYPES = frozenset({
    "auth", "join", "leave", "sync", "ping", "pong", "connected", "joined", "left", "synced", "resync",
    "presence", "user_joined", "user_left", "user_typing", "user_stopped_typing", "reply", "goodbye", "error",
    "resumed", "snapshot", "heartbeat",
})  # fmt: skip
