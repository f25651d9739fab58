"""
A real browser: one for all tests of a process, and one loop of theirs, for to start it costs more than most tests do.
What a test has opened is closed after it, and no page of one knows anything of another's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from browser.tabs import CHROMIUM, Chromium

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]


@pytest.fixture
async def chromium(tmp_path: Path) -> AsyncIterator[Chromium]:
    """A browser whose tabs can be hidden and frozen."""
    if not os.path.exists(CHROMIUM):
        pytest.skip("there is no chromium (Debian: apt install chromium)")
    async with Chromium(CHROMIUM, tmp_path / "profile") as chromium:
        yield chromium


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def launched() -> AsyncIterator[Browser]:
    if not os.path.exists(CHROMIUM):
        pytest.skip("there is no chromium (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(launched: Browser) -> AsyncIterator[Browser]:
    """For tests that are marked with `asyncio(loop_scope="session")`."""
    yield launched
    for context in launched.contexts:
        await context.close()
