"""
How strictly WebSockets are spoken: the Autobahn cases, against our server, our client, and others.

    .venv/bin/python bench/autobahn.py

Prints the table of `docs/conformance.md`; on stderr, which cases are not simply passed. In group 9, which is about
sizes, nobody is limited; else all are as they are by default. aiohttp is measured if it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvicorn
from kosoku._kosoku import CaseResult
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from conformance.driving import (
    CLIENT_FRAGMENTS,
    COMPRESSION,
    ROOMY,
    SIZES,
    WORDS,
    drive_client,
    drive_server,
    echo_server,
)
from holdfast import Limits
from holdfast.client.websocket import dial

Serve = Callable[[], AbstractAsyncContextManager[str]]
Drive = Callable[[Sequence[str]], Awaitable[list[CaseResult]]]

GROUPS = {"1 to 7, 10": WORDS, "9": SIZES, "12, 13": COMPRESSION}
BIG = ROOMY.message_bytes
VERDICTS = ["OK", "INFORMATIONAL", "NON-STRICT", "FAILED", "UNIMPLEMENTED"]
COLUMNS = ["groups", "cases", "OK", "informational", "non-strict", "failed", "not negotiated"]


@asynccontextmanager
async def websockets_server() -> AsyncIterator[str]:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=BIG, ping_interval=None) as server:
        yield address(server.sockets[0])


def uvicorn_server(ws: Any) -> Serve:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    @asynccontextmanager
    async def run() -> AsyncIterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            config = uvicorn.Config(echo, ws=ws, ws_max_size=BIG, lifespan="off", log_level="critical")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([sock]))
            yield address(sock)
            server.should_exit = True
            await serving

    return run


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(max_msg_size=0)
        await response.prepare(request)
        async for message in response:
            if message.type is WSMsgType.TEXT:
                await response.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await response.send_bytes(message.data)
        return response

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await web.SockSite(runner, sock).start()
        yield address(sock)
        await runner.cleanup()


def address(sock: socket.socket) -> str:
    return f"ws://127.0.0.1:{sock.getsockname()[1]}"


async def our_server(cases: Sequence[str]) -> list[CaseResult]:
    async with echo_server(ROOMY if cases is SIZES else Limits()) as url:
        return await drive_server(url, cases)


def at_server(served: Serve) -> Drive:
    async def drive(cases: Sequence[str]) -> list[CaseResult]:
        async with served() as url:
            return await drive_server(url, cases)

    return drive


def at_client(dialed: Callable[[str], connect]) -> Drive:
    async def drive(cases: Sequence[str]) -> list[CaseResult]:
        return await drive_client(dialed, cases)

    return drive


def verdict(result: CaseResult) -> str:
    """Return the worse of both: of what was exchanged, and of how it was closed."""
    return result.behavior.value if result.behavior_close.value in {"OK", "INFORMATIONAL"} else "FAILED"


async def measure(name: str, groups: Sequence[str], drive: Drive) -> None:
    """Drive the cases, and print a line for each group, and which cases are not simply passed."""
    for group in groups:
        with patch(CLIENT_FRAGMENTS, ROOMY.message_fragments if GROUPS[group] is SIZES else 4096):
            results = await drive(GROUPS[group])
        counts = Counter(map(verdict, results))
        row = ["" if group != groups[0] else name, group, len(results), *(counts[verdict] for verdict in VERDICTS)]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        for wrong in ("NON-STRICT", "FAILED"):
            cases = [result.case_id for result in results if verdict(result) == wrong]
            if cases:
                print(f"{name}: {wrong}: {', '.join(cases)}", file=sys.stderr)


def installed(name: str) -> str | None:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return None


async def main() -> None:
    """Print the table."""
    groups = ["1 to 7, 10", "9"]
    logging.disable()
    websockets, uvicorns, wsproto = installed("websockets"), installed("uvicorn"), installed("wsproto")
    print(f"| | {' | '.join(COLUMNS)} |\n{'|---' * (1 + len(COLUMNS))}|")
    await measure("holdfast, server", list(GROUPS), our_server)
    await measure("holdfast, Python client", list(GROUPS), at_client(lambda url: dial(url, None)))
    await measure(f"{websockets}, server", groups, at_server(websockets_server))
    plain = at_client(lambda url: connect(url, max_size=None, ping_interval=None, proxy=None))
    await measure(f"{websockets}, client", groups, plain)
    await measure(f"{uvicorns} with websockets", groups, at_server(uvicorn_server("websockets-sansio")))
    await measure(f"{uvicorns} with {wsproto}", groups, at_server(uvicorn_server("wsproto")))
    if (aiohttp := installed("aiohttp")) is not None:
        await measure(f"{aiohttp}, server", groups, at_server(aiohttp_server))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    asyncio.run(main())
