"""
Those who listen, each at an address of its own: `listen.py ADAPTER '["ws://…", …]'`.

Runs in the environment of the system that it listens to. Says what they hear, a line each: `[seconds, who, what,
value]`, by the monotonic clock. `up` and `down`: the client has a connection, or knows that it has lost it; `heard`:
the application was given a number; `told`: it was told that something may be missing. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote


def say(who: int, what: str, value: object = None) -> None:
    sys.stdout.write(json.dumps([time.monotonic(), who, what, value]) + "\n")
    sys.stdout.flush()


async def by_holdfast(who: int, url: str) -> None:
    """holdfast's own client, as its README has it."""
    import holdfast

    async def watch(client: holdfast.Client) -> None:
        live = False
        async for status in client.statuses():
            if live and status.state is not holdfast.State.LIVE:
                say(who, "down", status.reason)
            live = status.state is holdfast.State.LIVE

    async with holdfast.connect(url) as client:
        watching = asyncio.create_task(watch(client))
        async with client.join("room") as room:
            async for event in room:
                match event:
                    case holdfast.Event(type="message"):
                        say(who, "heard", event.data["n"])
                    case holdfast.Resync():
                        if event.reason != "new":
                            say(who, "told", event.reason)
                        say(who, "up")
                    case holdfast.Resumed():
                        say(who, "up")
        await watching


async def by_python_socketio(who: int, url: str) -> None:
    """python-socketio's own client, which reconnects by itself."""
    import socketio

    sio = socketio.AsyncClient()

    async def connect() -> None:
        say(who, "up")

    async def disconnect(reason: str) -> None:
        say(who, "down", reason)

    async def message(data: dict[str, Any]) -> None:
        say(who, "heard", data["n"])

    for handler in (connect, disconnect, message):
        sio.on(handler.__name__, handler)
    await sio.connect(url)
    await sio.wait()


async def by_websockets(who: int, url: str) -> None:
    """`websockets` with the loop that its documentation has for reconnecting."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async for websocket in connect(url, origin=origin(url)):
        say(who, "up")
        try:
            async for text in websocket:
                heard(who, text)
        except ConnectionClosed:
            pass
        say(who, "down", websocket.close_code)


async def by_nchan(who: int, url: str) -> None:
    """The same, going on after the last message that came: nchan's subprotocol gives their ids."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    last = ""
    while True:
        following = f"&last_event_id={quote(last)}" if last else ""
        async with aclosing(aiter(connect(url + following, subprotocols=["ws+meta.nchan"]))) as attempts:
            async for websocket in attempts:
                say(who, "up")
                try:
                    async for text in websocket:
                        head, _, body = text.partition("\n\n")
                        last = head.split("\n")[0].removeprefix("id: ")
                        heard(who, body)
                except ConnectionClosed:
                    pass
                say(who, "down", websocket.close_code)
                break  # to one that begins there


def origin(url: str) -> Any:
    """Where a page would come from that opens this address."""
    return "http://" + url.split("/")[2]


def heard(who: int, text: str | bytes) -> None:
    try:
        message = json.loads(text)
    except ValueError:
        return  # something else that the application says
    say(who, "heard", message.get("message", message)["n"])


ADAPTERS: dict[str, Callable[[int, str], Awaitable[None]]] = {
    "holdfast": by_holdfast,
    "python-socketio": by_python_socketio,
    "websockets": by_websockets,
    "nchan": by_nchan,
}


async def keep_listening(adapter: Callable[[int, str], Awaitable[None]], who: int, url: str) -> None:
    """Begin anew where a client gives up: a person would."""
    while True:
        try:
            await adapter(who, url)
        except Exception as error:
            say(who, "down", repr(error))
        await asyncio.sleep(1)


async def main(adapter: str, urls: list[str]) -> None:
    listening = [asyncio.create_task(keep_listening(ADAPTERS[adapter], who, url)) for who, url in enumerate(urls)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in listening:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
