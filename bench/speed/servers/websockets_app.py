"""`broadcast` of the websockets library, with a port beside it that tells it when."""

import asyncio
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import broadcast, serve

connected = set()


async def handler(websocket):
    connected.add(websocket)
    try:
        async for message in websocket:
            await websocket.send(message)
    finally:
        connected.remove(websocket)


async def told(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    asked = {name: float(values[0]) for name, values in parse_qs(urlsplit(head.split()[1].decode()).query).items()}
    due = time.monotonic()
    for _ in range(int(asked["rounds"])):
        at = time.monotonic_ns()
        for turn in range(int(asked["burst"])):
            message = {"at": at + turn, "p": "x" * int(asked["size"])}
            broadcast(connected, json.dumps(message, separators=(",", ":")))
        due += asked["gap"]
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


async def main(port):
    async with serve(handler, "127.0.0.1", port), await asyncio.start_server(told, "127.0.0.1", port + 1):
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))
