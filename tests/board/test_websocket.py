"""
The board by WebSocket, as a client sees it that knows nothing of holdfast.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from peers import Peer, Server, StartBoard


async def signed_in(server: Server, name: str) -> Peer:
    token = (await server.post("/login", {"name": name}))["data"]["token"]
    return await server.dial(f"/ws?token={token}")


async def test_events_reach_everybody_with_id_and_payload_their_author_too(board: Server) -> None:
    async with await board.dial() as one, await board.dial() as other:
        for peer in (one, other):
            joined = await peer.join()
            assert list(joined) == ["type", "boardId", "cursor", "recovered", "users", "roomSize"]
        task = await board.new_task("hello")
        for peer in (one, other):
            event = await peer.until("task_created")
            assert list(event) == ["type", "boardId", "id", "task"]
            assert event["boardId"] == "board-1"
            assert event["task"] == task
        await board.patch(f"/tasks/{task['id']}", {"title": "changed"})
        assert (await one.until("task_updated"))["task"]["title"] == "changed"
        await board.patch(f"/tasks/{task['id']}/move", {"listId": "list-done", "position": 0})
        moved = await one.until("task_moved")
        assert moved["task"]["listId"] == "list-done"
        assert moved["order"]["list-done"][0] == task["id"]
        assert task["id"] not in moved["order"]["list-todo"]
        await board.request("DELETE", f"/tasks/{task['id']}")
        deleted = await one.until("task_deleted")
        assert (deleted["taskId"], deleted["listId"]) == (task["id"], "list-done")


async def test_a_client_that_returns_and_does_not_join_hears_nothing(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.join()
    async with await board.dial() as peer:
        await peer.until("connected")
        await board.new_task()
        await peer.silence(0.5)


async def test_other_boards_are_not_heard(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.join("board-2")
        await board.new_task()
        await peer.silence(0.5)
        await peer.send({"type": "leave", "boardId": "board-2"})
        assert (await peer.until("left"))["boardId"] == "board-2"


async def test_a_join_since_a_cursor_is_sent_what_follows(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.join()
        await board.new_task("one")
        cursor = (await peer.until("task_created"))["id"]
    missed = [(await board.new_task(str(n)))["id"] for n in range(3)]
    async with await board.dial() as peer:
        joined = await peer.join(since=cursor)
        assert (joined["recovered"], joined["cursor"]) == (True, cursor)
        assert [(await peer.until("task_created"))["task"]["id"] for _ in missed] == missed


@pytest.mark.parametrize(
    ("since", "reason"), [("other:3", "epoch"), ("EPOCH:999999", "ahead"), ("EPOCH:9223372036854775807", "ahead")]
)
async def test_a_cursor_that_cannot_be_continued_says_why(board: Server, since: str, reason: str) -> None:
    cursor = (await board.get("/boards/board-1/tasks"))["cursor"]
    epoch, _, _ = cursor.partition(":")
    async with await board.dial() as peer:
        joined = await peer.join(since=since.replace("EPOCH", epoch))
        assert (joined["recovered"], joined["reason"], joined["cursor"]) == (False, reason, cursor)
        await peer.send({"type": "sync", "boardId": "board-1", "lastEventId": since.replace("EPOCH", epoch)})
        resync = await peer.until("resync")
        assert (resync["reason"], resync["cursor"]) == (reason, cursor)


async def test_sync_sends_again_what_follows_and_says_when_it_is_complete(board: Server) -> None:
    async with await board.dial() as peer:
        start = (await peer.join())["cursor"]
        made = [(await board.new_task(str(n)))["id"] for n in range(3)]
        seen = [await peer.until("task_created") for _ in made]
        await peer.send({"type": "sync", "boardId": "board-1", "since": start})
        again = [await peer.next() for _ in made]
        assert again == seen
        synced = await peer.until("synced")
        assert (synced["count"], synced["cursor"]) == (3, seen[-1]["id"])
        await peer.send({"type": "sync", "boardId": "board-2", "since": start})
        assert (await peer.until("error"))["code"] == "conflict"


async def test_people_come_and_go_once_however_many_tabs(board: Server) -> None:
    async with await board.dial() as watcher:
        await watcher.join()
        first, second = await signed_in(board, "Alice"), await signed_in(board, "Alice")
        await first.join()
        came = await watcher.until("user_joined")
        assert (came["name"], came["roomSize"]) == ("Alice", 2)
        assert {user["name"] for user in (await watcher.until("presence"))["users"]} >= {"Alice"}
        await second.join()
        await first.close()
        await watcher.silence(0.5)
        await second.close()
        began = time.monotonic()
        assert (await watcher.until("user_left"))["userId"] == came["userId"]
        assert time.monotonic() - began < 2  # a clean end has no grace


async def test_a_broken_link_has_grace_and_a_return_within_it_is_silent(start_board: StartBoard) -> None:
    server = start_board("--presence-grace", "2")
    async with await server.dial() as watcher:
        await watcher.join()
        peer = await signed_in(server, "Bob")
        await peer.join()
        await watcher.until("presence")
        peer.break_off()
        await asyncio.sleep(1)
        peer = await signed_in(server, "Bob")
        await peer.join()
        await watcher.silence(3)
        peer.break_off()
        began = time.monotonic()
        await watcher.until("user_left")
        assert 1.5 < time.monotonic() - began < 3.5


async def test_a_session_that_returns_replaces_its_dead_twin_at_once(board: Server) -> None:
    async with await board.dial() as watcher:
        await watcher.join()
        old = await signed_in(board, "Carol")
        session = (await old.until("connected"))["session"]
        await old.join()
        await watcher.until("presence")
        new = await signed_in(board, "Carol")
        await new.until("connected")
        await new.send({"type": "auth", "session": session})
        assert (await new.until("connected"))["session"] == session
        assert await old.closed() == 4009
        joined = await new.join()
        assert joined["roomSize"] == 2
        await watcher.silence(0.5)
        thief = await signed_in(board, "Bob")
        await thief.until("connected")
        await thief.send({"type": "auth", "session": session})
        assert (await thief.until("connected"))["session"] != session
        await new.send({"type": "ping"})
        await new.until("pong")
        for peer in (new, thief):
            await peer.close()


async def test_typing_is_told_to_the_others_and_lapses(board: Server) -> None:
    async with await board.dial() as watcher, await signed_in(board, "Alice") as typist:
        await watcher.join()
        await typist.join()
        await watcher.until("presence")
        await typist.send({"type": "typing", "boardId": "board-1"})
        assert (await watcher.until("user_typing"))["name"] == "Alice"
        await typist.send({"type": "stop_typing", "boardId": "board-1"})
        await watcher.until("user_stopped_typing")
        await typist.send({"type": "typing", "boardId": "board-1"})
        await watcher.until("user_typing")
        began = time.monotonic()
        await watcher.until("user_stopped_typing", 7)
        assert 4.5 < time.monotonic() - began < 6
        assert not [message for message in typist.heard if "typing" in message["type"]]
        await typist.send({"type": "typing", "boardId": "board-1"})
        await watcher.until("user_typing")
        typist.break_off()
        await watcher.until("user_stopped_typing", 1)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not JSON", "malformed"),
        ("", "malformed"),
        ("[]", "malformed"),
        ("{}", "malformed"),
        ('{"type":7}', "malformed"),
        ('{"type":"join"}', "malformed"),
        ('{"type":"join","boardId":7}', "malformed"),
        ('{"type":"join","boardId":""}', "malformed"),
        ('{"type":"join","boardId":"board-99"}', "not_found"),
        ('{"type":"join","boardId":"\'; DROP TABLE boards; --"}', "not_found"),
        ('{"type":"join","boardId":"board-1","since":7}', "malformed"),
        ('{"type":"join","boardId":"board-1","since":"nonsense"}', "malformed"),
        ('{"type":"join","room":"board-1"}', "malformed"),
        ('{"type":"sync","boardId":"board-1","since":"a:1"}', "conflict"),
        ('{"type":"typing","boardId":"board-1"}', "conflict"),
        ('{"type":"typing"}', "invalid"),
        ('{"type":"no_such_type"}', "invalid"),
        ('{"type":"auth","token":7}', "malformed"),
        ("[" * 30_000, "malformed"),
        ('{"type":' + "[" * 20_000 + "]" * 20_000 + "}", "malformed"),
        (b"\x00\x01\x02", "malformed"),
        ('{"type":"ping","x":"\ud800"}'.encode("utf-8", "surrogatepass").decode("latin-1"), None),
        ('{"type":"x","n":' + "9" * 10_000 + "}", "*"),
    ],
)
async def test_bad_input_gets_a_clear_error_and_the_connection_survives(
    board: Server, message: str | bytes, code: str | None
) -> None:
    async with await board.dial() as peer:
        await peer.until("connected")
        await peer.send(message)
        if code is not None:
            error = await peer.until("error")
            assert error["error"]
            assert code in (error["code"], "*")
        await peer.send({"type": "ping"})
        await peer.until("pong")
        await peer.join()


async def test_a_message_that_wants_an_answer_gets_one(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.join()
        await peer.send({"type": "typing", "boardId": "board-1", "ref": 7})
        assert await peer.until("reply") == {"type": "reply", "ref": 7, "ok": True, "data": None}
        await peer.send({"type": "no_such_type", "ref": "x"})
        reply: Any = await peer.until("reply")
        assert (reply["ref"], reply["ok"], reply["error"]["code"]) == ("x", False, "invalid")
