"""
How is the board put together?

The Hub, the routes, the page and what operators ask for, as one ASGI app.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from holdfast import Hub, Limits, User, __version__
from holdfast.board import changes
from holdfast.board.commands import accept_commands
from holdfast.board.operations import openapi
from holdfast.board.routes import COOKIE, Routes, board_must_exist
from holdfast.web import REFUSALS, Json, find_cookie

_PAGE = files("holdfast.board").joinpath("page")

#: The page loads nothing from elsewhere, runs no inline script, and is shown in nobody's frame.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self' ws: wss:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def create_app(
    store: str,
    *,
    heartbeat_interval: float = 30.0,
    heartbeat_timeout: float = 10.0,
    presence_grace: float = 5.0,
    require_login: bool = False,
    token_lifetime: float = 7 * 24 * 3600.0,
    origins: Sequence[str] = (),
    listen: str | None = None,
    redis: str | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """Return the board as an ASGI app; its data is in `store`, a file or a PostgreSQL database."""
    hub = Hub(
        store,
        room_key="boardId",
        heartbeat_interval=heartbeat_interval,
        heartbeat_timeout=heartbeat_timeout,
        presence_grace=presence_grace,
        require_login=require_login,
        origins=origins,
        listen=listen,
        redis=redis,
        migrations=migrations(),
        limits=limits,
    )

    @hub.authorize
    async def may(user: User, room: str, action: str) -> bool:
        await board_must_exist(hub, room)
        return True

    accept_commands(hub)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with hub:
            if await hub.read(changes.is_fresh):  # else nothing is written: there may be no room for it
                await hub.write(changes.seed)
            yield

    operations = Routes(hub, token_lifetime=token_lifetime).operations()
    document = openapi(
        operations,
        title="holdfast task board",
        version=__version__,
        description="A live task board. The WebSocket at /ws is described in PROTOCOL.md.",
    )

    async def index(request: Request) -> Response:
        response = Response(_PAGE.joinpath("index.html").read_bytes(), media_type="text/html", headers=_HEADERS)
        if find_cookie(request, COOKIE) is None and not require_login:
            # A guest is one person, however many tabs.
            name = secrets.token_hex(4)
            token = hub.guest_token(User(f"guest-{name}", f"Guest {name[:4]}"))
            response.set_cookie(COOKIE, token, httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return response

    async def healthz(request: Request) -> Response:
        return Json({"data": {"ok": True, "version": __version__}})

    async def readyz(request: Request) -> Response:
        if hub.is_ready:
            return Json({"data": {"ready": True}})
        return Json({"error": "draining" if hub.is_draining else "the database does not answer"}, 503)

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(hub.metrics())

    async def openapi_document(request: Request) -> Response:
        return Json(document)

    middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_credentials=True,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key", "last-event-id"],
        )
    ]
    return Starlette(
        routes=[
            *(Route(o.path, o.handler, methods=[o.method]) for o in operations),
            *hub.app.routes,  # /ws, and what a client falls back to where there is no way for a WebSocket
            Route("/", index),
            Route("/openapi.json", openapi_document),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Mount("/page", _Page(directory=str(_PAGE))),
        ],
        lifespan=lifespan,
        middleware=middleware if origins else [],
        exception_handlers=REFUSALS,
    )


def migrations() -> dict[str, list[str]]:
    """Return what makes the board's tables, by dialect."""
    return {
        dialect: [files("holdfast.board").joinpath(f"schema-{dialect}.sql").read_text()]
        for dialect in ("sqlite", "postgresql")
    }


class _Page(StaticFiles):
    """The page's files, with its headers."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(_HEADERS)
        return response
