"""
How is an application served in the sea?

By the real server, as one process after the other: a process can be killed, and the next one has what
is on the disk.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.server.hub import Hub, open_hubs
from holdfast.server.limits import Limits
from holdfast.server.runner import Server, configure
from holdfast.store.sqlite import SqliteStore
from holdfast.testing.endpoint import Socket
from holdfast.testing.network import SeaLoop
from holdfast.testing.virtual import Process

if TYPE_CHECKING:
    import httpx2

#: For an answer: longer than any poll is held. Seconds.
PATIENCE = 60.0


class Served:
    """
    An application that `sea.serve` has begun to serve.

    Attributes:
        url: Where it is: `http://localhost:8000`.
        starts: How often it was started.
    """

    def __init__(self, loop: SeaLoop, app: ASGIApp | Callable[[], ASGIApp], host: str, port: int) -> None:
        self.url = f"http://{host}:{port}"
        self.starts = 0
        self.process: Process | None = None
        self.dead: list[Process] = []
        self.stores: list[SqliteStore] = []  # that this process has opened
        self._loop = loop
        self._app = app
        self._address = host, port
        self._started = asyncio.Event()
        self._told_to_end = asyncio.Event()
        self._failure: BaseException | None = None
        self.failed_unheard = False  # it could not start, and nobody knows
        self._running: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it runs, or begins to."""
        return self.process is not None and self._failure is None

    def start(self) -> None:
        """Start it again, after it was killed or stopped."""
        if self.is_up:
            raise RuntimeError(f"{self.url} is served already")
        self.starts += 1
        self._started, self._told_to_end, self._failure = asyncio.Event(), asyncio.Event(), None
        self.process = Process(f"server {self.starts}")
        self._running = self.process.run(self._loop.create_task, self._serve())

    def kill(self) -> None:
        """End it, now (SIGKILL)."""
        if self.process is None:
            raise RuntimeError(f"{self.url} is not served: there is nothing to kill")
        self.process.kill()
        self.dead.append(self.process)
        self.process = None
        self._started.set()  # it never will be, and whoever waits for it finds nobody there
        for hub in self.hubs():
            open_hubs.discard(hub)
            hub._lives = None
        for store in self.stores:
            store.abandon().close()  # it has no threads
        self.stores.clear()

    async def stop(self) -> None:
        """End it in good order (SIGTERM): everybody is told when to come back."""
        if self.process is None or self._running is None:
            raise RuntimeError(f"{self.url} is not served: there is nothing to stop")
        self._told_to_end.set()
        await self._running
        self.process = None
        self.stores.clear()

    async def ready(self) -> None:
        """Wait until it is served; raises what the application has raised if it cannot start."""
        await self._started.wait()
        if self._failure is not None:
            self.failed_unheard = False
            raise self._failure

    def hubs(self) -> tuple[Hub, ...]:
        """Return the hubs that this process has opened."""
        return tuple(hub for hub in open_hubs if hub.opened.store in self.stores)

    # What anybody can ask of it by HTTP.

    def http(self, **options: Any) -> httpx2.AsyncClient:
        """
        Return an HTTP client of this server, for `async with`; it takes all options of `httpx2.AsyncClient`.

        What it asks waits until the server has started.
        """
        import httpx2

        async def when_ready(request: httpx2.Request) -> None:
            await self.ready()

        options = {"timeout": PATIENCE, **options}
        client = httpx2.AsyncClient(base_url=self.url, trust_env=False, verify=False, **options)
        client.event_hooks = {**client.event_hooks, "request": [when_ready, *client.event_hooks["request"]]}
        return client

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Make a request, on a connection of its own; `options` are those of httpx2."""
        async with self.http() as http:
            return await http.request(method, path, **options)

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        """Make a GET request."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx2.Response:
        """Make a POST request."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> httpx2.Response:
        """Make a PUT request."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> httpx2.Response:
        """Make a PATCH request."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> httpx2.Response:
        """Make a DELETE request."""
        return await self.request("DELETE", path, **options)

    # The process.

    async def _serve(self) -> None:
        told_to_end = self._told_to_end
        try:
            config = configure(self._noting_failure(self._made()), Limits(), speed=False, log_level=None)
            server = _Server(config, self)
            server.lifespan = config.lifespan_class(config)
            await server.startup([Socket(self._address)])  # type: ignore[list-item]
        except (Exception, SystemExit) as error:  # of which the second is uvicorn's
            self._failure, self.failed_unheard = self._failure or error, True
            return
        finally:
            self._started.set()
        await told_to_end.wait()
        await server.shutdown()

    def _made(self) -> ASGIApp:
        """Return the application; a function without arguments makes a new one for each process."""
        app: Any = self._app
        if (inspect.isroutine(app) or inspect.isclass(app)) and not _required(app):
            app = app()
        return app  # type: ignore[no-any-return]

    def _noting_failure(self, app: ASGIApp) -> ASGIApp:
        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except Exception as error:
                if scope["type"] == "lifespan" and not self._started.is_set():
                    self._failure = error
                raise

        return noting


class _Server(Server):
    """A server that is not alone in this process of ours."""

    def __init__(self, config: Any, served: Served) -> None:
        super().__init__(config, lambda: None)
        self._served = served

    def hubs(self) -> tuple[Hub, ...]:
        return self._served.hubs()


def _required(function: Callable[..., Any]) -> bool:
    """Whether a function cannot be called without arguments."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = inspect.signature(function).parameters.values()
    return any(each.kind in kinds and each.default is each.empty for each in parameters)
