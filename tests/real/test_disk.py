"""
The disk is full, or says that it could not write: nothing is acknowledged that is not there, what can go on does, and
when the disk works again, so does everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx2
import pytest

import holdfast
from holdfast import Unavailable
from peers import Server, StartBoard
from real.disk import ServerOnDisk, SmallDisk, failing_to_sync
from real.people import app_in, everybody_has, following, until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with SmallDisk(folder, 4096) as disk:
        yield disk


async def write(server: Server, title: str) -> httpx2.Response:
    return await server.request("POST", "/tasks", {"listId": "list-todo", "title": title}, idempotency_key=title)


async def titles(server: Server) -> list[str]:
    tasks = (await server.get("/boards/board-1/tasks"))["data"]
    return [task["title"] for task in tasks if task["listId"] == "list-todo"]


async def test_a_full_disk_refuses_changes_in_words_and_everything_else_goes_on(
    disk: SmallDisk, tmp_path: Path
) -> None:
    with ServerOnDisk(disk, tmp_path, "board", "--data", str(tmp_path / "disk" / "board.db")) as server:
        async with await server.dial() as one, await server.dial() as other:
            await one.join()
            await other.join()
            before = await titles(server)
            disk.fill()
            acknowledged, refused = [], []
            for number in range(200):  # what was set aside for the log before still takes some
                answer = await write(server, f"task {number} {'x' * 180}")
                (acknowledged if answer.status_code == 201 else refused).append((f"task {number} {'x' * 180}", answer))
                if len(refused) == 5:
                    break
            assert [answer.status_code for _, answer in refused] == [503] * 5
            assert "the disk is full" in refused[0][1].json()["error"]
            assert refused[0][1].headers["retry-after"]
            # Reads go on, and are true; so does what is not kept, and whoever comes.
            assert await titles(server) == before + [title for title, _ in acknowledged]
            await one.send({"type": "typing", "boardId": "board-1"})
            await other.until("user_typing")
            async with await server.dial() as third:
                assert (await third.join())["roomSize"] == 3
            disk.make_room()
            again = [await write(server, title) for title, _ in refused]  # at once
            assert [answer.status_code for answer in again] == [201] * 5
            assert await titles(server) == before + [title for title, _ in acknowledged + refused]
            told = [await other.until("task_created") for _ in acknowledged + refused]
            assert [event["task"]["title"] for event in told] == [title for title, _ in acknowledged + refused]
        log = server.log.read_text()
        assert log.count("changes cannot be committed (database or disk is full)") == 1
        assert log.count("changes can be committed again") == 1
        assert "Traceback" not in log
        server.kill()
        assert disk.is_sound("board.db")
        server.start()
        assert await titles(server) == before + [title for title, _ in acknowledged + refused]


async def test_a_server_that_is_started_on_a_full_disk_serves_what_there_is(disk: SmallDisk, tmp_path: Path) -> None:
    with ServerOnDisk(disk, tmp_path, "board", "--data", str(tmp_path / "disk" / "board.db")) as server:
        assert (await write(server, "before")).status_code == 201
        there = await titles(server)
        server.kill()
        disk.fill()
        server.start()
        assert await titles(server) == there
        async with await server.dial() as peer:
            assert (await peer.join())["roomSize"] == 1
            numbers = count()
            while (
                answer := await write(server, f"{next(numbers)}")
            ).status_code == 201:  # there may be some room in the file
                await peer.until("task_created")
            assert answer.status_code == 503
            disk.make_room()
            assert (await write(server, "after")).status_code == 201
            assert (await peer.until("task_created"))["task"]["title"] == "after"
        assert "Traceback" not in server.log.read_text()
        server.stop()
        assert disk.is_sound("board.db")


async def test_a_server_that_cannot_start_on_a_full_disk_says_so_in_a_sentence(disk: SmallDisk, tmp_path: Path) -> None:
    server = ServerOnDisk(disk, tmp_path, "board", "--data", str(tmp_path / "disk" / "board.db"))
    disk.fill()
    with server.log.open("w") as log:
        assert server.spawn(log).wait(30) == 1
    assert f"Error: cannot open {tmp_path}/disk/board.db: database or disk is full" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.long
async def test_commands_that_find_the_disk_full_are_refused_and_only_what_was_acknowledged_is_told(
    disk: SmallDisk, tmp_path: Path
) -> None:
    app_in(disk.path)
    with ServerOnDisk(disk, tmp_path, "serve", "real_app:app") as server:
        async with following(server.url, 2) as followers:
            giver, other = followers
            disk.fill()
            given = [giver.say(f"{number} {'x' * 2_000}") for number in range(30)]
            outcomes = await asyncio.gather(*given, return_exceptions=True)
            refused = [outcome for outcome in outcomes if outcome is not None]
            assert refused
            assert all(isinstance(outcome, Unavailable) and "the disk is full" in str(outcome) for outcome in refused)
            await everybody_has(followers, list(giver.given))
            disk.make_room()
            await giver.say("again")
            await everybody_has(followers, list(giver.given))
            assert [giver.given[text] for text in giver.texts] == other.ids
    assert disk.is_sound("real.db")


async def test_what_could_not_be_synced_is_not_acknowledged_and_the_next_commit_writes_anew(
    start_board: StartBoard,
) -> None:
    server = start_board()
    async with await server.dial() as peer:
        await peer.join()
        assert (await write(server, "before")).status_code == 201
        assert (await peer.until("task_created"))["task"]["title"] == "before"
        with failing_to_sync(server.pid):
            for attempt in range(3):
                answer = await write(server, f"meanwhile {attempt}")
                assert (answer.status_code, "look at what there is" in answer.text) == (500, True)
            here = await titles(server)
            assert (await server.request("GET", "/readyz")).status_code == 200
        assert here[-1] == "before"
        for attempt in range(3):  # what is not known is asked under its key
            assert (await write(server, f"meanwhile {attempt}")).status_code == 201
        expected = ["before", *(f"meanwhile {attempt}" for attempt in range(3))]
        told = [await peer.until("task_created") for _ in range(3)]  # and nothing was told before it was committed
        assert [event["task"]["title"] for event in told] == expected[1:]
        first = int(told[0]["id"].partition(":")[2])
        assert [int(event["id"].partition(":")[2]) for event in told] == [first, first + 1, first + 2]
    log = server.log.read_text()
    assert log.count("changes cannot be committed (disk I/O error)") == 1
    assert log.count("changes can be committed again") == 1
    server.kill()
    server.start()
    assert (await titles(server))[-4:] == expected


async def test_whoever_commands_while_the_disk_does_not_sync_is_told_that_nobody_knows(tmp_path: Path) -> None:
    with Server(*app_in(tmp_path)) as server:
        async with following(server.url, 2) as followers:
            await followers[0].say("before")
            with failing_to_sync(server.pid):
                with pytest.raises(holdfast.OutcomeUnknown, match="the disk failed"):
                    await followers[0].say("meanwhile")
                assert followers[1].texts in ([], ["before"])
            await followers[0].say("after")
            await everybody_has(followers, ["before", "after"])


@pytest.mark.long
async def test_what_nobody_could_know_is_settled_by_a_restart_and_told_as_it_is(tmp_path: Path) -> None:
    with Server(*app_in(tmp_path)) as server:
        async with following(server.url, 2) as followers:
            await followers[0].say("before")
            with failing_to_sync(server.pid):
                with pytest.raises(holdfast.OutcomeUnknown):
                    await followers[0].say("meanwhile")
                server.kill()
            server.start()
            await followers[0].say("after")
            await until(lambda: followers[0].texts[-1] == "after" == followers[1].texts[-1], 30)
            texts = followers[0].texts
            assert texts in (["before", "after"], ["before", "meanwhile", "after"])  # which, only the disk can say
            await everybody_has(followers, texts)
