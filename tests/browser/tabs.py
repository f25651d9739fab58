"""
A Chromium whose tabs can be hidden and frozen. Playwright's cannot: it keeps every page visible.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

CHROMIUM = os.environ.get("HOLDFAST_CHROMIUM") or shutil.which("chromium") or ""


class Tab:
    """One tab, spoken to in the words of the DevTools protocol."""

    def __init__(self, id: str, connection: ClientConnection) -> None:
        self.id = id
        self._connection = connection
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(ConnectionClosed):  # with the browser, without a goodbye
            async for text in self._connection:
                message = json.loads(text)
                answer = self._answers.pop(message.get("id"), None)
                if answer is not None:
                    answer.set_result(message)

    async def do(self, method: str, **parameters: Any) -> Any:
        """Have it do something."""
        number = self._asked = self._asked + 1
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(10):
            message = await answer
        assert "error" not in message, message
        return message["result"]

    async def evaluate(self, script: str) -> Any:
        """Return what a script comes to."""
        answer = await self.do(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        return answer["result"].get("value")

    async def freeze(self) -> None:
        """No script of it runs any more (it must be hidden)."""
        await self.do("Page.setWebLifecycleState", state="frozen")

    async def thaw(self) -> None:
        await self.do("Page.setWebLifecycleState", state="active")


class Chromium:
    """A browser with one window. What is opened or shown hides the other tabs."""

    def __init__(self, program: str, profile: Path) -> None:
        self._command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self._port_file = profile / "DevToolsActivePort"

    async def __aenter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        async with asyncio.timeout(20):
            while not self._port_file.exists() or "\n" not in self._port_file.read_text():
                await asyncio.sleep(0.05)
        port = self._port_file.read_text().split()[0]
        self._devtools = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._devtools.aclose()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 10)

    async def open(self, url: str = "about:blank") -> Tab:
        """Open a tab, and show it."""
        return await self._attach((await self._devtools.put(f"/json/new?{url}")).json())

    async def show(self, tab: Tab) -> None:
        """Show a tab; the others are hidden."""
        await self._devtools.get(f"/json/activate/{tab.id}")

    async def other(self, *known: Tab) -> Tab:
        """Return the tab that a page has opened."""
        async with asyncio.timeout(10):
            while True:
                for target in (await self._devtools.get("/json/list")).json():
                    if (
                        target["type"] == "page"
                        and target["url"].startswith("http")
                        and target["id"] not in {tab.id for tab in known}
                    ):
                        return await self._attach(target)
                await asyncio.sleep(0.05)

    async def _attach(self, target: Any) -> Tab:
        return Tab(target["id"], await connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None))
