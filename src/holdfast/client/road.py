"""
What does a client expect of whatever carries its link?

A road tells everything that it hears, and its own end, exactly once; what is said on it
waits in a bounded queue, so that a server which does not listen holds up nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from holdfast.core.link import Advised, Heard, Lost, Opened
from holdfast.protocol.messages import Event, ServerMessage

#: What waits to be sent; beyond it, a new link is better than a longer queue.
WAITING = 1_000

#: One message of a server's, or one answer by HTTP. Events have 64 KiB; an answer, whatever the handler returns.
MESSAGE_BYTES = 64 * 1024 * 1024

#: What a road tells: what has become of it, or what the server said, as text or read already.
News = Opened | Heard | Advised | Lost | str | ServerMessage | Event
#: Is told; the road reads on when it has returned.
Tell = Callable[["Road", News], Awaitable[None]]


class Road(Protocol):
    """One attempt at a link. Whoever has given it up passes over what it still tells."""

    async def run(self, url: str, token: str | None) -> None:
        """Dial, and tell what is heard until there is nothing more to hear."""

    def say(self, text: str) -> bool:
        """Send it, after what was said before; False: the server has taken nothing for a long time."""

    async def abandon(self, code: int) -> None:
        """Let go of it: say goodbye if it can still be heard, and wait for nothing."""


def websocket_url(url: str) -> str:
    """Return the URL of the WebSocket that is meant by that of a server, or of the WebSocket; raises `ValueError`."""
    parts = urlsplit(url if "//" in url else f"//{url}", "http")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is not the URL of a server")
    return urlunsplit((scheme, parts.netloc, parts.path if len(parts.path) > 1 else "/ws", parts.query, ""))


def http_url(url: str, name: str) -> str:
    """Return the URL of what is called `name` beside the WebSocket at `url`."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    return urlunsplit((scheme, parts.netloc, parts.path.rpartition("/")[0] + "/" + name, parts.query, ""))
