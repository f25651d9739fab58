"""
How much of everything is allowed, and why just that much?

Every limit is enforced by default; none is a number in a document only. Seconds are
floats. What a client can run into is told to it in `connected`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every limit of a server. Pass your own to `Hub(limits=…)`."""

    message_bytes: int = 64 * 1024
    """One message from a client. Commands are small; what is big belongs into an upload."""

    message_fragments: int = 64
    """Frames that one message may come in: each costs memory, even an empty one (CVE-2026-48779)."""

    control_frames_per_second: float = 20
    """Pings and pongs from a client: each ping costs an answer."""

    messages_per_second: float = 50
    """A fast typist makes ten messages a second; a script in a loop, thousands."""

    message_burst: int = 100
    """Messages at once: an outbox that is flushed after a reconnect."""

    messages_waiting: int = 128
    """Messages of one connection that wait while an earlier one is being handled."""

    bytes_waiting: int = 512 * 1024
    """… and their size."""

    rooms_per_connection: int = 100
    """A page shows a handful of rooms; each costs the server memory and a place in presence."""

    connections: int = 10_000
    """All WebSockets of the Hub: half of the usual limit of 20,000 file descriptors."""

    streams: int = 5_000
    """All event streams and held polls of the Hub."""

    auth_seconds: float = 10.0
    """
    From the handshake to saying who one is: whoever is nobody holds a socket no longer. So long, too, the application
    may take to say who somebody is (`authenticate`) and, each time, what they may (`authorize`).
    """

    auth_bytes: int = 4 * 1024
    """All that is taken from nobody, frames and all: a token fits, an attack does not."""

    request_seconds: float = 10.0
    """For the head of a request to arrive, and for a body that is a command. Whoever is slower holds a socket."""

    head_bytes: int = 16 * 1024
    """The head of a request, or what comes instead of one: a long cursor and a token fit, and many cookies."""

    close_seconds: float = 1.0
    """For a close frame to be answered. After that the socket is aborted: `close()` alone never ends a stuck peer."""

    body_bytes: int = 64 * 1024
    """The body of a request."""

    stream_rooms: int = 32
    """Rooms in one event stream: its cursor names them all, and must fit into a header."""

    poll_seconds: float = 30.0
    """A held poll is answered by then, below the usual 60 s of a proxy."""

    stream_heartbeat: float = 15.0
    """A comment on an event stream as often as this keeps proxies from closing it."""

    log_records: int = 10_000
    """Publications that a room's log keeps at least …"""

    log_seconds: float = 7 * 24 * 3600.0
    """… unless they are older than this. A client that was away longer takes a snapshot, which is then cheaper."""

    news_seconds: float = 0.25
    """Servers that share a database look for news as often as this, also if no hint comes: so late is a lost one."""

    verdict_seconds: float = 24 * 3600.0
    """How long the answer to a keyed command is remembered: longer than any client goes on retrying."""

    drain_seconds: float = 10.0
    """From SIGTERM to the end. Service managers kill after 30 s, container platforms after 10 to 30 s."""
