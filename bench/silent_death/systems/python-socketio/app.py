"""An asynchronous server for ASGI with a FastAPI application beside it, as python-socketio's documentation has it."""

from typing import Any

import socketio
from fastapi import FastAPI

sio = socketio.AsyncServer(async_mode="asgi")
other = FastAPI()
app = socketio.ASGIApp(sio, other)


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: object) -> None:
    await sio.enter_room(sid, "room")


@other.post("/publish")
async def publish(message: dict[str, Any]) -> None:
    await sio.emit("message", message, room="room")


@other.get("/members")
async def members() -> int:
    return len(list(sio.manager.get_participants("/", "room")))
