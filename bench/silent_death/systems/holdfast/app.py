"""The example of holdfast's README, and who is in the room."""

from typing import Any

from fastapi import FastAPI

from holdfast import Hub

hub = Hub("chat.db")
app = FastAPI(lifespan=hub.lifespan)
app.mount("/live", hub.app)


@app.post("/publish")
async def publish(message: dict[str, Any]) -> None:
    await hub.publish("room", "message", message)


@app.get("/members")
async def members() -> int:
    return len(hub.members("room"))
