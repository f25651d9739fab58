"""Scripts of node that import `./holdfast.js`, and what they print: JSON, one value a line."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest

from peers import SRC

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node")


class Script:
    """One that runs. Iterating yields what it prints, until it ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise StopAsyncIteration
        return json.loads(line)

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())


@asynccontextmanager
async def running(script: str, *arguments: str) -> AsyncIterator[Script]:
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, "--max-old-space-size=600", "--input-type=module", "--eval", script, "--", *arguments,
        cwd=SRC / "holdfast" / "browser", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def printed(script: str, *arguments: str) -> list[Any]:
    """Return all that one prints until it ends."""
    async with asyncio.timeout(20), running(script, *arguments) as node:
        return [what async for what in node]
