"""A server, or what is between it and a client, that says what no server of ours would: each answer is a test's own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

CONNECTED: dict[str, Any] = {
    "type": "connected",
    "user": {"userId": "u", "name": "U"},
    "heartbeat": {"interval": 30, "timeout": 10},
    "limits": {"messageBytes": 65536, "messagesPerSecond": 50, "rooms": 100},
    "roomKey": "room",
}

#: The head of an event stream.
SSE = {"content-type": "text/event-stream"}

#: Writes the body of an answer, and returns when that has ended.
Body = Callable[[asyncio.StreamWriter], Any]
#: What is answered: its body, perhaps with lines for its head.
Answer = bytes | Body | tuple[bytes | Body, dict[str, str]]


class Hostile:
    """
    Answers by HTTP alone, so that clients come that way. Each road has its answers, in their order; the last one stays.

    A `bytes` answer is whole; of another one nothing says how long it is.
    """

    def __init__(self, **answers: list[Answer]) -> None:
        self.answers = {"send": [json.dumps(CONNECTED).encode()], "events": [stream()], "ws": [refused()], **answers}
        self.asked: list[tuple[float, str, bytes]] = []  # when, for what, and with which head
        self.port = 0

    def times(self, name: str) -> list[float]:
        """When somebody asked for this."""
        return [when for when, asked, _ in self.asked if asked == name]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ws"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if (length := re.search(rb"(?i)content-length: (\d+)", head)) is not None:
            await reader.readexactly(int(length[1]))
        found = re.search(rb"[A-Z]+ /([\w.-]*)", head)
        name = "" if found is None else found[1].decode()
        self.asked.append((asyncio.get_running_loop().time(), name, head))
        answers = self.answers.get(name, [refused()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        body, fields = answer if isinstance(answer, tuple) else (answer, {})
        fields = {"status": "200 OK", "content-type": "application/json", "connection": "close", **fields}
        lines = [f"HTTP/1.1 {fields.pop('status')}", *(f"{name}: {value}" for name, value in fields.items())]
        if isinstance(body, bytes):
            lines.append(f"content-length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if isinstance(body, bytes):
            writer.write(body)
            await writer.drain()
        else:
            await body(writer)
        writer.close()


def refused(status: str = "404 Not Found", **fields: str) -> Answer:
    return b"{}", {"status": status, **fields}


def stream(*blocks: str, **fields: str) -> Answer:
    """Return an event stream that says this, and then nothing more."""

    async def body(writer: asyncio.StreamWriter) -> None:
        writer.write("".join(f"{block}\n\n" for block in ("retry: 0", *blocks)).encode())
        await writer.drain()
        await asyncio.sleep(3600)

    return body, {**SSE, **fields}


def endless(part: bytes, head: bytes = b"") -> Body:
    """Return a body that begins with `head`, and goes on with `part` for ever."""

    async def body(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()

    return body


@asynccontextmanager
async def hostile(**answers: list[Answer]) -> AsyncIterator[Hostile]:
    """Serve these answers."""
    peer = Hostile(**answers)
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await peer.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
