"""A store can be copied while it is served, and begin a new life after it was restored."""

from __future__ import annotations

import asyncio
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from holdfast import Hub
from holdfast.cli import main
from holdfast.errors import StoreError
from holdfast.store.upkeep import back_up, renew_epoch
from peers import Server, StartBoard


async def log_of(hub: Hub) -> tuple[str, list[Any]]:
    opened = hub.opened
    return opened.store.epoch, [record.body for record in await opened.store.page("lobby", 0)]


async def test_a_copy_is_whole_while_writes_go_on(tmp_path: Path) -> None:
    data, copy = tmp_path / "data.db", tmp_path / "copy.db"
    async with Hub(str(data), migrations=["CREATE TABLE note (n INTEGER)"]) as hub:

        def write(tx: Any, n: int) -> None:
            tx.execute("INSERT INTO note VALUES (?)", (n,))
            tx.publish("lobby", "noted", {"n": n})

        async def work() -> None:
            for n in range(150):
                await hub.write(write, n)

        working = asyncio.create_task(work())
        await asyncio.sleep(0.02)
        await asyncio.to_thread(back_up, data, copy)
        await working
        epoch, log = await log_of(hub)
        assert len(log) == 150
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    async with Hub(str(copy), migrations=["CREATE TABLE note (n INTEGER)"]) as hub:
        other, copied = await log_of(hub)
        assert other != epoch
        assert copied == log[: len(copied)]
        count = await hub.read(lambda tx: tx.one("SELECT count(*) AS n FROM note"))
        assert count == {"n": len(copied)}


async def test_a_new_epoch_makes_every_position_void_and_keeps_the_rest(tmp_path: Path) -> None:
    data = tmp_path / "data.db"
    async with Hub(str(data)) as hub:
        await hub.publish("lobby", "noted", {"n": 1})
        before, log = await log_of(hub)
        secret = hub.opened.store.secret
        with pytest.raises(StoreError, match="in use by process"):
            renew_epoch(data)
    epoch = renew_epoch(data)
    assert epoch != before
    async with Hub(str(data)) as hub:
        assert await log_of(hub) == (epoch, log)
        assert hub.opened.store.secret == secret


def test_what_cannot_be_done_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("not a database, and long enough to look like one" * 100)
    copy = tmp_path / "copy.db"
    with pytest.raises(StoreError, match="there is no"):
        back_up(tmp_path / "nothing.db", copy)
    with pytest.raises(StoreError, match="not a store"):
        back_up(other, copy)
    with pytest.raises(StoreError, match="not a store"):
        renew_epoch(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.txt"]


async def test_by_hand_with_a_board_that_runs(tmp_path: Path) -> None:
    run = CliRunner()
    data, copy = tmp_path / "board" / "taskboard.db", tmp_path / "copy.db"
    data.parent.mkdir()
    with Server(data.parent, "board") as server:
        await server.new_task("before the backup")
        assert run.invoke(main, ["store", "backup", str(data), str(copy)]).exit_code == 0
        await server.new_task("after it")
        cursor = (await server.get("/boards/board-1/tasks"))["cursor"]
        refused = run.invoke(main, ["store", "new-epoch", str(data)])
        assert (refused.exit_code, "in use by process" in refused.output) == (1, True)
        again = run.invoke(main, ["store", "backup", str(data), str(copy)])
        assert (again.exit_code, "exists already" in again.output) == (1, True)
        server.stop()
        for rest in data.parent.glob("taskboard.db-*"):
            rest.unlink()
        shutil.copyfile(copy, data)  # in place: the same file, the same inode
        assert run.invoke(main, ["store", "new-epoch", str(data)]).exit_code == 0
        server.start()
        tasks = await server.get("/boards/board-1/tasks")
        assert "after it" not in [task["title"] for task in tasks["data"]]
        answer = await server.get(f"/boards/board-1/updates?cursor={cursor}")
        assert answer["resync"] == {"reason": "epoch"}


async def test_a_file_that_was_put_back_in_place_is_seen_to_be_older_also_after_kill_9(
    start_board: StartBoard, tmp_path: Path
) -> None:
    server = start_board()
    await server.new_task("in the copy")
    back_up(server.folder / "board.db", tmp_path / "copy.db")
    cursor = (await server.get("/boards/board-1/tasks"))["cursor"]
    await server.new_task("not in the copy")
    server.kill()
    for beside in ("board.db-wal", "board.db-shm"):
        (server.folder / beside).unlink(missing_ok=True)
    with (server.folder / "board.db").open("wb") as file:  # in place: the same inode
        file.write((tmp_path / "copy.db").read_bytes())
    server.start()
    answer = await server.get(f"/boards/board-1/updates?cursor={cursor}")
    assert answer["resync"] == {"reason": "epoch"}
