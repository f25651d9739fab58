"""holdfast as its README has it: a durable log, presence, cursors and heartbeats. All of these publish at `/go`."""

import asyncio
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from holdfast import Hub, User

hub = Hub("bench.db")


@hub.authenticate
async def who(token, request):
    return None if token is None else User(token, token)


@hub.on("echo")
async def echo(request):
    return request.data


async def go(request: Request) -> JSONResponse:
    """Publish so many rounds of so many messages, one round every `gap` seconds; 0: when the last one is committed."""
    asked = {name: float(value) for name, value in request.query_params.items()}
    rounds, burst, gap, padding = int(asked["rounds"]), int(asked["burst"]), asked["gap"], "x" * int(asked["size"])
    due = time.monotonic()
    for _ in range(rounds):
        at = time.monotonic_ns()
        await asyncio.gather(*(hub.publish("room", "m", {"at": at + turn, "p": padding}) for turn in range(burst)))
        due += gap
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return JSONResponse(None)


async def race(request: Request) -> JSONResponse:
    """Publish for so many seconds, with so many writers, each into a room of its own; return how many, and how long."""
    writers, seconds = int(request.query_params["writers"]), float(request.query_params["seconds"])
    count, began = 0, time.monotonic()
    end = began + seconds

    async def write(number: int) -> None:
        nonlocal count
        while time.monotonic() < end:
            await hub.publish(f"race-{number}", "m", {"p": "x" * 100})
            count += 1

    await asyncio.gather(*map(write, range(writers)))
    return JSONResponse([count, time.monotonic() - began])


async def head(request: Request) -> JSONResponse:
    """Return where the room stands, so many publications before its head."""
    epoch, offset = (await hub.publish("room", "m", {"at": time.monotonic_ns()})).id.split(":")
    return JSONResponse(f"{epoch}:{int(offset) - int(request.query_params['behind'])}")


async def say(request: Request) -> JSONResponse:
    """Publish into so many rooms from one on what was due then; return the positions."""
    first, count, at = (int(request.query_params[name]) for name in ("first", "rooms", "at"))
    rooms = [f"room-{number}" for number in range(first, first + count)]
    said = await asyncio.gather(*(hub.publish(room, "m", {"at": at}) for room in rooms))
    return JSONResponse([one.id for one in said])


async def busy(request: Request) -> JSONResponse:
    """Return for how long nobody else was listened to, at most, in so many seconds: seconds of processor time."""
    longest, end = 0.0, time.monotonic() + float(request.query_params["seconds"])
    while time.monotonic() < end:
        before = time.thread_time()
        await asyncio.sleep(0.001)
        longest = max(longest, time.thread_time() - before)
    return JSONResponse(longest)


routes = [Route(f"/{work.__name__}", work, methods=["POST"]) for work in (go, race, head, say, busy)]
app = Starlette(routes=[*routes, Mount("/live", hub.app)], lifespan=hub.lifespan)
