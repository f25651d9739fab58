"""
What the README shows runs as written.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from peers import Server

HOUSE = Path(__file__).parent.parent.parent
README = (HOUSE / "README.md").read_text()


def example(name: str) -> str:
    """Return the code that stands behind a mark."""
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README, re.S)
    assert found, name
    return found[1]


async def test_the_dozen_lines_run_as_written(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(example("server"))
    served = Server(tmp_path, "serve", "chat:app")
    served.command[:3] = [str(Path(sys.executable).with_name("holdfast"))]  # as it is typed, and from where
    del served.env["PYTHONPATH"]
    with served as server:
        (tmp_path / "listen.py").write_text(example("client").replace("8000", str(server.port)))
        listener = subprocess.Popen(
            [sys.executable, "-u", "listen.py"], cwd=tmp_path, env=server.env, stdout=subprocess.PIPE, text=True
        )
        try:
            assert listener.stdout is not None
            async with asyncio.timeout(10):
                first = await asyncio.to_thread(listener.stdout.readline)
            assert first.startswith("resync ")
            async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as client:
                answer = (await client.post("/rooms/lobby/messages?text=hello")).json()
                assert list(answer) == ["room", "type", "data", "id"]
                assert await asyncio.to_thread(listener.stdout.readline) == "message {'text': 'hello'}\n"
                server.kill()
                server.start()
                assert (await client.post("/rooms/lobby/messages?text=again")).status_code == 200
                line = await asyncio.to_thread(listener.stdout.readline)
                assert line.startswith("resumed ")
                while line.startswith("resumed "):  # on a busy machine by HTTP first, and then on a WebSocket
                    line = await asyncio.to_thread(listener.stdout.readline)
                assert line == "message {'text': 'again'}\n"
        finally:
            listener.kill()
            listener.communicate()


def test_every_link_leads_somewhere() -> None:
    for document in (*HOUSE.glob("*.md"), *HOUSE.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_promise_says_whether_it_is_kept() -> None:
    rows = re.findall(r"^\| (P\d+) .*\| (.+) \|$", README, re.M)
    assert [name for name, _ in rows] == [f"P{n}" for n in range(1, 12)]
    for name, mark in rows:
        assert "(tests/" in mark or "not" in mark, name


def test_the_commands_that_show_it_are_there_to_be_run() -> None:
    table = README.partition("## How do you know?")[2].partition("\n## ")[0]
    commands = [found[1] for found in re.finditer(r"\| `([^`]+)`[^|]*\|$", table, re.M)]
    assert len(commands) == 6
    for command in commands:
        program, *rest = command.split()
        assert program in {".venv/bin/python", "python3"}
        script = rest[: 2 if rest[0] == "-m" else 1]
        asked = subprocess.run(
            [sys.executable, *script, "--help"], cwd=HOUSE, capture_output=True, text=True, timeout=60
        )
        assert asked.returncode == 0, asked.stderr
        for option in filter(re.compile("--").match, rest):
            assert option in asked.stdout, command
