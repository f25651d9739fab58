"""The `ConnectionManager` of FastAPI's documentation on WebSockets."""

import asyncio
import json
import time

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


class ConnectionManager:
    def __init__(self):
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        self.active_connections.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket):
        await websocket.send_text(message)

    async def broadcast(self, message: str):
        for connection in self.active_connections:
            await connection.send_text(message)


manager = ConnectionManager()


@app.websocket("/ws")
async def websocket_endpoint(websocket: WebSocket):
    await manager.connect(websocket)
    try:
        while True:
            data = await websocket.receive_text()
            await manager.send_personal_message(data, websocket)
    except WebSocketDisconnect:
        manager.disconnect(websocket)


@app.post("/go")
async def go(rounds: int, burst: int, gap: float, size: int):
    due = time.monotonic()
    for _ in range(rounds):
        at = time.monotonic_ns()
        for turn in range(burst):
            await manager.broadcast(json.dumps({"at": at + turn, "p": "x" * size}, separators=(",", ":")))
        due += gap
        await asyncio.sleep(max(0.0, due - time.monotonic()))
