"""How is one link held on a WebSocket, from the dialing to the end?"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from holdfast.client.connection import StrictConnection
from holdfast.client.road import MESSAGE_BYTES, WAITING, Tell
from holdfast.core.link import GREETING_SECONDS, Lost, Opened
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.messages import Auth

SUBPROTOCOL = "holdfast.1"
#: For a close frame to be answered; a dead socket never does.
CLOSE_SECONDS = 1.0


class WebSocketRoad:
    """A link on one WebSocket."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._connection: ClientConnection | None = None
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._abandoned = asyncio.Event()
        self._dialing: asyncio.Task[None] | None = None

    async def run(self, url: str, token: str | None) -> None:
        """Dial, and tell what is heard until there is nothing more to hear."""
        if self._abandoned.is_set():
            return
        self._dialing = asyncio.current_task()
        try:
            connection = await dial(url, token)
        except (OSError, WebSocketException, EOFError) as error:
            await self._tell(self, _refusal(error))
            return
        self._connection = connection
        if self._abandoned.is_set():
            await self.abandon(CloseCode.NORMAL)
            return
        writing = asyncio.create_task(self._write(connection))
        await self._tell(self, Opened())
        try:
            async for text in connection:
                if isinstance(text, str):  # nothing else is in the protocol
                    await self._tell(self, text)
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
        self._abandoned.set()
        if self._connection is None:
            if self._dialing is not None:
                self._dialing.cancel()  # a server that accepts, and says nothing, would be waited for for ever
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
        # Any other status may be a proxy's, that knows no WebSockets; plain HTTP will tell.
        code = CloseCode.UNAUTHORIZED if status == 401 else CloseCode.ABNORMAL
        return Lost(code, f"HTTP {status}")
    return Lost(CloseCode.ABNORMAL, str(error) or type(error).__name__)


async def is_free(url: str, token: str | None) -> bool:
    """Return whether a WebSocket gets through to a hub, and its answer back."""
    with suppress(OSError, WebSocketException, EOFError, TimeoutError):
        async with asyncio.timeout(GREETING_SECONDS), dial(url, token) as connection:
            await connection.send(msgspec.json.encode(Auth(token)).decode())
            return bool(await connection.recv())
    return False


class _Dial(connect):
    """Dials where it is told to, and follows no redirect: what is said there is a token."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return why there is no connection."""
        return exc


def dial(url: str, token: str | None) -> connect:
    """Dial one; it is strict, and leaves it to others to judge when it is dead."""
    return _Dial(
        url,
        additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
        compression=None,  # nothing that is asked for can blow up
        # Its own keepalive and its own reconnecting stay off: there is one watchdog, and one who dials.
        ping_interval=None,
        open_timeout=None,
        close_timeout=CLOSE_SECONDS,
        max_size=MESSAGE_BYTES,
        proxy=None,
        create_connection=StrictConnection,
    )
