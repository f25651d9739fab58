"""
A board has limits: so much of everything, and who does not read makes nobody pay for it.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from holdfast import Conflict, Hub, Transaction
from holdfast.board import changes
from holdfast.board.models import NewBoard, NewList, NewTask, TaskMove
from peers import Server, StartBoard

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
TASKS = "INSERT INTO tasks SELECT 't' || ? || i, ?, 'x', NULL, NULL, i - 1, '', '' FROM n"


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    schema = files("holdfast.board").joinpath("schema-sqlite.sql").read_text()
    async with Hub("memory:", room_key="boardId", migrations=[schema]) as hub:
        await hub.write(changes.seed)
        yield hub


def fill(sql: str, count: int, *parameters: Any) -> Callable[[Transaction], None]:
    def change(tx: Transaction) -> None:
        tx.execute(COUNT + sql, (count, *parameters))

    return change


async def refused(hub: Hub, what: str, change: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(Conflict, match=f"at most .* {what}"):
        await hub.write(change, *args)


async def test_of_everything_there_can_only_be_so_much(hub: Hub) -> None:
    assert (changes.MAX_BOARDS, changes.MAX_LISTS, changes.MAX_TASKS) == (1_000, 50, 1_000)
    assert (changes.MAX_TASKS_ON_BOARD, changes.MAX_PEOPLE) == (5_000, 1_000)

    await hub.write(fill("INSERT INTO users SELECT 'u' || i, 'name ' || i, NULL FROM n", changes.MAX_PEOPLE - 3))
    await refused(hub, "people", changes.sign_in, "one more")
    assert (await hub.write(changes.sign_in, "Alice")).name == "Alice"  # who is known comes in

    few = len((await hub.read(changes.board_with_lists, "board-2")).lists)
    await hub.write(fill("INSERT INTO lists SELECT 'l' || i, 'board-2', 'x', i FROM n", changes.MAX_LISTS - few))
    await refused(hub, "lists on a board", changes.create_list, NewList("board-2", "x"))

    await hub.write(fill(TASKS, changes.MAX_TASKS, "a", "list-done"))
    await refused(hub, "tasks in a list", changes.create_task, NewTask("list-done", "x"))
    await refused(hub, "tasks in a list", changes.move_task, "task-1", TaskMove("list-done", 0))
    for name in "bcde":
        await hub.write(lambda tx, name=name: tx.execute("INSERT INTO lists VALUES (?, 'board-1', 'x', 9)", (name,)))
        await hub.write(fill(TASKS, changes.MAX_TASKS, name, name))
    await refused(hub, "tasks on a board", changes.create_task, NewTask("list-todo", "x"))

    await hub.write(fill("INSERT INTO boards SELECT 'b' || i, 'x', '' FROM n", changes.MAX_BOARDS - 2))
    await refused(hub, "boards", changes.create_board, NewBoard("one more"))


def memory(server: Server) -> int:
    """Return what a server holds in memory, in KiB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.parametrize("dialect", ["sqlite"], scope="module")
async def test_those_who_ask_and_do_not_read_cost_little(start_board: StartBoard) -> None:
    server = start_board()
    server.stop()
    with closing(sqlite3.connect(server.folder / "board.db")) as store, store:
        store.execute(COUNT + TASKS.replace("'x', NULL", "'x', hex(zeroblob(5000))"), (2_000, "big", "list-todo"))
    server.start()
    await server.get("/boards/board-1/tasks")
    before = memory(server)
    with ExitStack() as held:
        for _ in range(20):
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(b"GET /boards/board-1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(1.0)
        async with asyncio.timeout(2):
            await server.get("/boards")
        assert memory(server) - before < 100_000  # KiB; 20 answers of 20 MB would be 400,000
