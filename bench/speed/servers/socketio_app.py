"""python-socketio's asynchronous server for ASGI: everybody is in a room, and the room is emitted to."""

import asyncio
import time

import socketio
from fastapi import FastAPI

sio = socketio.AsyncServer(async_mode="asgi")
other = FastAPI()
app = socketio.ASGIApp(sio, other)


@sio.event
async def connect(sid, environ, auth):
    await sio.enter_room(sid, "room")


@sio.event
async def echo(sid, data):
    await sio.emit("echo", data, to=sid)


@other.post("/go")
async def go(rounds: int, burst: int, gap: float, size: int):
    due = time.monotonic()
    for _ in range(rounds):
        at = time.monotonic_ns()
        for turn in range(burst):
            await sio.emit("m", {"at": at + turn, "p": "x" * size}, room="room")
        due += gap
        await asyncio.sleep(max(0.0, due - time.monotonic()))
