"""
What is a client in the sea?

The real one (`holdfast.connect`), as a process of its own, so that something can happen to its links
and to nobody else's; and what its application does can be slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from holdfast.client.client import Client, Token
from holdfast.client.room import Room, Snapshot
from holdfast.client.rooms import TakeSnapshot
from holdfast.core.link import State
from holdfast.core.replica import Item, Replica
from holdfast.protocol.messages import Event
from holdfast.testing.virtual import Process

#: A client of a server that runs is connected within this, or something is wrong with its URL or its token. Seconds.
CONNECTED = 60.0


class SeaClient(Client):
    """A client that `sea.connect` has returned: `async with` waits until it is connected."""

    def __init__(
        self,
        url: str,
        ready: Callable[[], Awaitable[bool]],
        *,
        token: Token | None,
        resume: bool,
        snapshot: TakeSnapshot | None,
        jitter: bool,
    ) -> None:
        super().__init__(url, token=token, resume=resume, snapshot=snapshot, jitter=jitter)
        self.process = Process("client")
        self.reads_again = 0.0  # until then its application takes in nothing
        self._is_ready = ready

    async def __aenter__(self) -> Self:
        waits = await self._is_ready()
        await self.process.run(asyncio.get_running_loop().create_task, super().__aenter__())
        if waits:
            try:
                async with asyncio.timeout(CONNECTED):
                    await self.ready()
            except BaseException as error:
                status = self.status
                await self.close()
                if not isinstance(error, TimeoutError):
                    raise
                why = f", the last attempt: {status.reason}" if status.reason else ""
                raise TimeoutError(f"no link to {self.url} within {CONNECTED:g} s{why}") from None
        return self

    def join(self, room: str) -> SeaRoom:
        """Return a room, which is joined from `async with` on."""
        self._codec.check_room(room)
        return SeaRoom(self, room, Replica(room, resume=self._resume))

    @property
    def is_live(self) -> bool:
        """Whether it takes itself to be connected."""
        return self.status.state is State.LIVE


class SeaRoom(Room):
    """
    A room of such a client.

    Attributes:
        recover: How its client begins again after a reconnect.
        told: The cursor up to which its application was told, once it was told anything.
    """

    def __init__(self, client: SeaClient, name: str, replica: Replica) -> None:
        super().__init__(client._rooms, name, replica)
        self._reader = client
        self.recover = "resume" if client._resume else "snapshot"
        self.told: str | None = None

    async def __anext__(self) -> Item | Snapshot:
        item = await super().__anext__()
        cursor = item.id if isinstance(item, Event) else item.cursor
        self.told = cursor or self.told  # broadcasts have none
        return item

    async def _until_next(self) -> None:
        """Wait until there is something to take, and its application takes in anything."""
        await super()._until_next()
        loop = asyncio.get_running_loop()
        while loop.time() < self._reader.reads_again:  # noqa: ASYNC110 - which may grow
            await asyncio.sleep(self._reader.reads_again - loop.time())
