"""
How is one link to the server held, from the dialing to the end?

A socket tells everything that it hears, and its own end, exactly once; what is said on it
waits in a bounded queue, so that a server which does not read holds up nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from holdfast.core.link import Lost, Opened
from holdfast.protocol.codes import CloseCode

SUBPROTOCOL = "holdfast.1"
#: What waits to be sent; beyond it, a new link is better than a longer queue.
WAITING = 1_000
#: For a close frame to be answered; a dead socket never does.
CLOSE_SECONDS = 1.0

#: Is told what a socket has heard, or what has become of it; the socket reads on when it has returned.
Tell = Callable[["Socket", Opened | Lost | str], Awaitable[None]]


class Socket:
    """One physical link. Whoever has given it up passes over what it still tells."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._connection: ClientConnection | None = None
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._abandoned = False

    async def run(self, url: str, token: str | None) -> None:
        """Dial, and tell what is heard until there is nothing more to hear."""
        try:
            # Its own keepalive and its own reconnecting stay off: there is one watchdog, and one who dials.
            connection = await dial(
                url,
                additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                ping_interval=None,
                open_timeout=None,
                close_timeout=CLOSE_SECONDS,
                max_size=None,
                proxy=None,
            )
        except (OSError, WebSocketException, EOFError) as error:
            await self._tell(self, _refusal(error))
            return
        self._connection = connection
        if self._abandoned:
            await self.abandon(CloseCode.NORMAL)
            return
        writing = asyncio.create_task(self._write(connection))
        await self._tell(self, Opened())
        try:
            async for text in connection:
                await self._tell(self, text if isinstance(text, str) else text.decode())
        except ConnectionClosed:
            pass
        finally:
            writing.cancel()
        code = CloseCode.ABNORMAL if connection.close_code is None else connection.close_code
        await self._tell(self, Lost(code, connection.close_reason or ""))

    def say(self, text: str) -> bool:
        """Send it, after what was said before; False: the server has taken nothing for a long time."""
        try:
            self._outgoing.put_nowait(text)
        except asyncio.QueueFull:
            return False
        return True

    async def abandon(self, code: int) -> None:
        """Let go of it: say goodbye if it can still be heard, and wait for nothing."""
        self._abandoned = True
        if self._connection is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close(code)
        except (TimeoutError, WebSocketException, OSError):
            pass
        finally:
            self._connection.transport.abort()

    async def _write(self, connection: ClientConnection) -> None:
        try:
            while True:
                await connection.send(await self._outgoing.get())
        except ConnectionClosed:
            pass  # who reads from it finds out


def _refusal(error: Exception) -> Lost:
    """Return what a failed handshake means, in close codes."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        code = {401: CloseCode.UNAUTHORIZED, 403: CloseCode.FORBIDDEN}.get(status, CloseCode.ABNORMAL)
        return Lost(code, f"HTTP {status}")
    return Lost(CloseCode.ABNORMAL, str(error) or type(error).__name__)


def websocket_url(url: str) -> str:
    """Return the URL of the WebSocket that is meant by the URL of a server, or of the WebSocket itself."""
    parts = urlsplit(url if "//" in url else f"//{url}", "http")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is not the URL of a server")
    return urlunsplit((scheme, parts.netloc, parts.path if len(parts.path) > 1 else "/ws", parts.query, ""))
